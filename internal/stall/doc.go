// Package stall tells a slow transfer from a dead one: a context watched by a
// Guard ends when nothing has moved for a while, however long the whole takes.
//
// Watch makes the context of one request; whoever moves bytes for it calls
// Moved, or reads through Guard.Reader; Stalled says afterwards who ended it.
package stall

// Package leader calls NameNodes by HTTP and follows the leader.
//
// A Caller is given the addresses of some NameNodes. A call goes to the one
// that led last; an answer "not leader" carries a hint where to go, a NameNode
// that does not answer is passed over, and the call goes round until somebody
// answers it or its context ends. A mutation carries the same request ID in
// every try, so that trying again is safe even when only the answer was lost.
//
// The Caller learns the members of the group while it works: it goes on when
// all the NameNodes it was configured with have been replaced one by one.
//
// Start reading at Caller.Do; endpoints.go is what a Caller knows of the
// NameNodes, try.go is one request and what its answer means.
package leader

// Package faultbed runs a cluster of real processes for tests, and harms it:
// kills and pauses, cut and slow links, full and frozen disks, a power cut, too
// little CPU. Only tests import it, and it works on Linux only.
//
// Start reading at Bed. Options say, as data, how many nodes there are, what
// disks they have and whether each has a network of its own. A test package that
// uses beds has a TestMain that returns Main(m).
//
// # Cleaning up
//
// Whatever a bed makes (processes, mounts, network namespaces, links, control
// groups, files in /dev/shm) is registered with the test's Cleanup when it is
// made, so it is undone in reverse order, also after a failed test or a panic.
// Processes die with the test process. For what a killed test process leaves
// behind, each bed has a number, which is part of all names it gives. The number
// is owned by listening on a port: when nobody listens, nobody owns what carries
// the number, and the next New or Main sweeps it.
//
// When the test failed, the logs' ends are printed and the bed's directory stays,
// with the disks' images; its path is printed.
//
// # Power cuts
//
// A node's directory can lie on an ext4 file system on a loop device over a file
// in memory, which commits its journal only when asked to (commit=3600). PowerCut
// stops all processes, tells the file systems to go down at once without writing
// anything more (as xfstests does), kills the processes and mounts what the
// devices hold. What was not fsynced is lost, as it would be in a machine.
//
// # What needs root
//
// Disks other than plain directories, networks other than loopback, and CPU
// quotas. A test that asks for something which this machine or this user cannot
// do is skipped, and says why.
package faultbed

// Package chunkstore keeps chunks as files in data directories and answers for
// their safety: a chunk that Commit reported, that List shows or that a
// Report names survives a power cut, and a file that was only half written is
// never seen. It knows nothing of networks.
//
// Start reading at Store; Writer is the way in, OpenChunk the way out, and
// Report is how a DataNode tells the NameNodes what has changed.
//
// A Store is what is held (the ledger), whose it is (the identity), and some
// volumes. A volume is one data directory: files, a disk and its troubles. The
// ledger knows which volume has a chunk; no caller needs to.
//
// Open finds out which directories are this node's (attach.go) and returns;
// what lies in them is read in the background (recover.go). Probe finds disks
// that are in trouble (probe.go). Whatever touches a disk is a task, and who
// began it gives up waiting when the disk hangs; the task goes on by itself and
// cleans up when it has ended (tasks.go).
//
// # A data directory
//
//	lock            held with flock(2) while a process uses the directory
//	identity.json   whose directory this is; see Identity
//	scrub.json      how far reading everything again has got; see ScrubState
//	chunks/00 .. ff chunk files, in the directory named by the low byte of the
//	                ID; a file's name is the ID as 16 hexadecimal digits
//	tmp/            chunks being written; emptied at every start
//	quarantine/     damaged chunk files and second copies, named
//	                ID-incarnation-number, for people
//	trash/          removed chunks, named likewise, for Config.TrashKeep
//
// All directories are made, and made durable, before identity.json is written
// for the first time: a directory without it was never in use.
//
// # A chunk file
//
// The data comes first, so that the kernel can send a file's beginning
// straight from the page cache. The footer follows; its length depends only on
// that of the data. Integers are unsigned and little-endian.
//
//	offset        bytes  what
//	0             S      data, S from 1 to 67108864
//	S             4 x B  CRC-32C of each block of 65536 bytes of data; B is
//	                     S / 65536 rounded up, and the last block may be shorter
//	S + 4B        8      "DFSCHUNK"
//	S + 4B + 8    4      format version: 1
//	S + 4B + 12   4      block size: 65536
//	S + 4B + 16   8      chunk ID, not zero
//	S + 4B + 24   8      S
//	S + 4B + 32   4      CRC-32C of the data
//	S + 4B + 36   4      CRC-32C of the footer up to here, from offset S
//
// A file of any other length, or whose ID is not its name, is damaged, and goes
// into quarantine. One of another format version or block size is of a newer
// version of DFS-Go, and the directory is not used. One that cannot be read
// says nothing of its content: it stays where it is and is not held.
//
// # Order of writing
//
// Create in tmp, allocate, write data and footer, fsync the file, rename it
// into its place without replacing anything, fsync the directory, and only
// then show the chunk to anyone. A failed fsync is final: the kernel may have
// dropped the pages and will report success when asked again, so the chunk is
// dropped and the volume takes no more chunks until it is opened anew. A disk
// that is merely full, or a directory that could not be opened for its fsync,
// costs only the chunk.
//
// Loading fsyncs each directory that has chunks before it believes in them: the
// last process may have died before it could.
package chunkstore

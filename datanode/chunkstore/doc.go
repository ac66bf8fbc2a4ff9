// Package chunkstore keeps chunks in data directories and answers for their
// safety: a chunk that Put or Commit reported, that List shows or that a Report
// names survives a power cut, and one that was only half written is never seen.
// It knows nothing of networks.
//
// Start reading at Store; Put and Writer are the ways in, OpenChunk the way out,
// and Report is how a DataNode tells the NameNodes what has changed.
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
//	segments/       small chunks, packed: see below
//	tmp/            chunks being written; emptied at every start
//	quarantine/     damaged chunks and second copies, as chunk files named
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
//
// # Small chunks
//
// Chunks of at most PackLimit bytes are records in segments, whose format is in
// docs/disk-formats.md; why it is as it is says decision 0013. There are four
// notions:
//
// A record is a chunk with a header (segment.go). A segment is a file of records,
// and is only appended to. The log writer (log.go) is the goroutine that appends
// to the last segment of a volume: it takes all that wait, writes them, makes
// them durable with one fdatasync, holds them and lets those who wait go. An
// index (segindex.go) lists the records of a segment that is full, so that a
// start need not read it; without one, it is scanned (segscan.go, segload.go).
//
// A removal changes the checksum of the record into its complement, in the index
// if there is one (mark.go). Segments in which much has been removed are
// compacted (compact.go): what lives is written anew, by the log writer, and the
// file goes. Until then the bytes of a removed chunk are what they were.
//
// OpenChunk reads a packed chunk wholly, and checks it. What is in memory is read
// at once; what is not is a task like any other.
package chunkstore

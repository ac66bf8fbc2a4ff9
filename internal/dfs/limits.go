package dfs

// Limits hold for every user of the system, whoever asks.
const (
	MaxNameLength      = 255  // bytes in one name of a path
	MaxPathLength      = 4096 // bytes in a path
	MaxPathDepth       = 256  // names in a path
	MaxNodeIDLength    = 64   // bytes in a node ID
	MaxRequestIDLength = 64   // bytes in a request ID
	MaxRackLength      = 64   // bytes in the name of a rack
	MaxURLLength       = 256  // bytes in the URL a node announces

	DefaultChunkSize = 4 << 20  // bytes
	MinChunkSize     = 1 << 10  // bytes
	MaxChunkSize     = 64 << 20 // bytes
	BlockSize        = 64 << 10 // bytes that have a checksum of their own

	DefaultReplication = 3
	MaxReplication     = 16

	MaxChunksPerFile       = 1 << 17 // 512 GiB at the default chunk size
	MaxChunksPerAllocation = 4096    // chunks asked for in one request
	MaxChunksPerReport     = 16384   // chunk IDs in one part of a heartbeat
)

// MinReplicas is how many replicas of each chunk must be durable before an
// upload with the given replication may be acknowledged.
func MinReplicas(replication int) int {
	return min(replication, 2)
}

// CheckReplication tells whether replication is one a file can have.
func CheckReplication(replication int) error {
	if replication < 1 || replication > MaxReplication {
		return Errorf(Invalid, "replication %d is not possible: choose 1 to %d", replication, MaxReplication)
	}
	return nil
}

// CheckChunkSize tells whether size, in bytes, is one a file can have.
func CheckChunkSize(size int64) error {
	if size < MinChunkSize || size > MaxChunkSize {
		return Errorf(Invalid, "a chunk size of %d bytes is not possible: choose %d to %d", size, MinChunkSize, MaxChunkSize)
	}
	return nil
}

// CheckRack tells whether rack can be the name of a rack: the empty name, or
// up to MaxRackLength printable characters of the kind a node ID has, with '/'.
func CheckRack(rack string) error {
	for i := range len(rack) {
		if c := rack[i]; !isAlphanumeric(c) && c != '.' && c != '_' && c != '-' && c != '/' {
			return Errorf(Invalid, "%.80q is not the name of a rack: letters, digits, '.', '_', '-' and '/' are allowed", rack)
		}
	}
	if len(rack) > MaxRackLength {
		return Errorf(Invalid, "the name of the rack is %d bytes long; at most %d are allowed", len(rack), MaxRackLength)
	}
	return nil
}

package dfs

import (
	"strconv"
	"strings"
)

// Digest is a fingerprint of a set of chunk IDs that is kept up to date one
// chunk at a time: the sum, modulo 2^64, of a mix of each ID. A DataNode and
// the namespace compare digests to see that they agree on what the node holds.
// It guards against lost reports, not against an adversary.
type Digest uint64

// Add returns the digest with id put into the set.
func (d Digest) Add(id ChunkID) Digest { return d + Digest(mix(uint64(id))) }

// Remove returns the digest with id taken out of the set.
func (d Digest) Remove(id ChunkID) Digest { return d - Digest(mix(uint64(id))) }

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014): neighbouring
// IDs get unrelated values, so that sums do not cancel out.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// String returns 16 hexadecimal digits.
func (d Digest) String() string { return formatHex(uint64(d)) }

// MarshalText writes the 16 hexadecimal digits.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts what MarshalText writes.
func (d *Digest) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil || len(text) != hexIDLength || strings.ContainsAny(string(text), "+-_") {
		return Errorf(Invalid, "%.40q is not an inventory digest: 16 hexadecimal digits are needed", text)
	}
	*d = Digest(v)
	return nil
}

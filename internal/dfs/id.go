package dfs

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
)

// ChunkID names one chunk for ever: IDs come from a counter in the namespace
// and are never used twice. Zero is not an ID. Its text is 16 lower-case
// hexadecimal digits.
type ChunkID uint64

// UploadID names one upload, in the same form as a ChunkID.
type UploadID uint64

// NodeID names a NameNode or a DataNode. It is chosen by the operator and
// stays with the node's directory; an address may change, an ID does not.
type NodeID string

// ClusterID is minted once, by the first leader, as 32 hexadecimal digits.
// Every peer, DataNode and client compares it.
type ClusterID string

// RequestID names one mutation across all its retries.
type RequestID string

const hexIDLength = 16

// String returns the 16 hexadecimal digits.
func (c ChunkID) String() string { return formatHex(uint64(c)) }

// MarshalText writes the 16 hexadecimal digits.
func (c ChunkID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is ParseChunkID.
func (c *ChunkID) UnmarshalText(text []byte) (err error) {
	*c, err = ParseChunkID(string(text))
	return err
}

// ParseChunkID accepts exactly what String writes, and not zero.
func ParseChunkID(s string) (ChunkID, error) {
	v, ok := parseHex(s)
	if !ok {
		return 0, Errorf(Invalid, "%.40q is not a chunk ID: 16 lower-case hexadecimal digits, not all zero, are needed", s)
	}
	return ChunkID(v), nil
}

// String returns the 16 hexadecimal digits.
func (u UploadID) String() string { return formatHex(uint64(u)) }

// MarshalText writes the 16 hexadecimal digits.
func (u UploadID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is ParseUploadID.
func (u *UploadID) UnmarshalText(text []byte) (err error) {
	*u, err = ParseUploadID(string(text))
	return err
}

// ParseUploadID accepts exactly what String writes, and not zero.
func ParseUploadID(s string) (UploadID, error) {
	v, ok := parseHex(s)
	if !ok {
		return 0, Errorf(Invalid, "%.40q is not an upload ID: 16 lower-case hexadecimal digits, not all zero, are needed", s)
	}
	return UploadID(v), nil
}

func formatHex(v uint64) string {
	s := strconv.FormatUint(v, 16)
	return strings.Repeat("0", hexIDLength-len(s)) + s
}

// parseHex is stricter than strconv: no upper case, no sign, no short form, so
// that one ID has one spelling.
func parseHex(s string) (uint64, bool) {
	if len(s) != hexIDLength {
		return 0, false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return 0, false
		}
	}
	v, err := strconv.ParseUint(s, 16, 64)
	return v, err == nil && v != 0
}

// ParseNodeID accepts 1 to 64 letters, digits, dots, underscores and hyphens,
// beginning with a letter or digit: an ID is part of file names and headers.
func ParseNodeID(s string) (NodeID, error) {
	if len(s) == 0 || len(s) > MaxNodeIDLength || !isAlphanumeric(s[0]) || !isWord(s) {
		return "", Errorf(Invalid, "%.80q is not a node ID: 1 to %d letters, digits, '.', '_' or '-' are needed, beginning with a letter or digit", s, MaxNodeIDLength)
	}
	return NodeID(s), nil
}

// ParseRequestID accepts 1 to 64 letters, digits, dots, underscores and hyphens.
func ParseRequestID(s string) (RequestID, error) {
	if len(s) == 0 || len(s) > MaxRequestIDLength || !isWord(s) {
		return "", Errorf(Invalid, "%.80q is not a request ID: 1 to %d letters, digits, '.', '_' or '-' are needed", s, MaxRequestIDLength)
	}
	return RequestID(s), nil
}

// ParseClusterID accepts 32 lower-case hexadecimal digits.
func ParseClusterID(s string) (ClusterID, error) {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 16 || strings.ToLower(s) != s {
		return "", Errorf(Invalid, "%.80q is not a cluster ID: 32 lower-case hexadecimal digits are needed", s)
	}
	return ClusterID(s), nil
}

// NewRequestID makes an ID that no other request will have.
func NewRequestID() RequestID { return RequestID(RandomHex()) }

// NewClusterID mints the ID of a new cluster.
func NewClusterID() ClusterID { return ClusterID(RandomHex()) }

// RandomHex returns 128 random bits as 32 hexadecimal digits.
func RandomHex() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	return hex.EncodeToString(b[:])
}

// IsRandomHex tells whether s may have come from RandomHex.
func IsRandomHex(s string) bool {
	_, err := ParseClusterID(s)
	return err == nil
}

func isWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

package dfs

import (
	"hash"
	"hash/crc32"
	"strconv"
	"strings"
)

// Checksum is a CRC-32C (Castagnoli, as in iSCSI, RFC 3720). Its text is 8
// lower-case hexadecimal digits: that of "123456789" is e3069283.
type Checksum uint32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ChecksumOf computes the checksum of data.
func ChecksumOf(data []byte) Checksum { return Checksum(crc32.Checksum(data, castagnoli)) }

// Update returns the checksum of what c is the checksum of, followed by data.
// The checksum of nothing is zero.
func (c Checksum) Update(data []byte) Checksum {
	return Checksum(crc32.Update(uint32(c), castagnoli, data))
}

// NewHash returns a running checksum for io.Copy and the like.
func NewHash() hash.Hash32 { return crc32.New(castagnoli) }

// String returns the 8 hexadecimal digits.
func (c Checksum) String() string {
	s := strconv.FormatUint(uint64(c), 16)
	return strings.Repeat("0", 8-len(s)) + s
}

// MarshalText writes the 8 hexadecimal digits.
func (c Checksum) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is ParseChecksum.
func (c *Checksum) UnmarshalText(text []byte) (err error) {
	*c, err = ParseChecksum(string(text))
	return err
}

// ParseChecksum accepts exactly what String writes.
func ParseChecksum(s string) (Checksum, error) {
	v, err := strconv.ParseUint(s, 16, 32)
	if err != nil || len(s) != 8 || s[0] == '+' || strings.ToLower(s) != s {
		return 0, Errorf(Invalid, "%.40q is not a CRC-32C: 8 lower-case hexadecimal digits are needed", s)
	}
	return Checksum(v), nil
}

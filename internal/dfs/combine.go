package dfs

import "hash/crc32"

// Polynomials over GF(2), modulo that of CRC-32C, as the checksum itself has
// them: the highest bit is the coefficient of x^0.
const (
	one         = 1 << 31
	xToTheEight = one >> 8 // what one more byte multiplies by
)

// Combine returns the checksum of two parts put together from the checksum of
// each, a and b, and the length of the second part in bytes. A second part of
// no bytes changes nothing, nor does a negative length.
//
// Bytes that follow a part multiply its polynomial by x^8 each; the method is
// that of crc32_combine in zlib (Mark Adler).
func Combine(a, b Checksum, lengthB int64) Checksum {
	if lengthB <= 0 {
		return a
	}
	shift, power := uint32(one), uint32(xToTheEight)
	for n := lengthB; n > 0; n >>= 1 {
		if n&1 == 1 {
			shift = multiply(shift, power)
		}
		power = multiply(power, power)
	}
	return Checksum(multiply(shift, uint32(a))) ^ b
}

// multiply returns a times b modulo the polynomial of CRC-32C.
func multiply(a, b uint32) uint32 {
	var product uint32
	for ; a != 0; a <<= 1 {
		if a&one != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry == 1 {
			b ^= crc32.Castagnoli
		}
	}
	return product
}

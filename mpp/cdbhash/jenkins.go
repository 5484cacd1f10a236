package cdbhash

import (
	"encoding/binary"
	"math/bits"
)

// seed is the start value of PostgreSQL's hash_bytes, to which the length is
// added.
const seed = 0x9e3779b9 + 3923095

// hashBytes is PostgreSQL's hash_any: Bob Jenkins's lookup3 over
// little-endian words.
func hashBytes(p []byte) uint32 {
	a := uint32(seed) + uint32(len(p))
	b, c := a, a
	for len(p) >= 12 {
		a += binary.LittleEndian.Uint32(p)
		b += binary.LittleEndian.Uint32(p[4:])
		c += binary.LittleEndian.Uint32(p[8:])
		a, b, c = mix(a, b, c)
		p = p[12:]
	}
	// The lowest byte of c is left to the length, so its tail starts at 8.
	for i, v := range p {
		switch {
		case i < 4:
			a += uint32(v) << (8 * i)
		case i < 8:
			b += uint32(v) << (8 * (i - 4))
		default:
			c += uint32(v) << (8 * (i - 7))
		}
	}
	return final(a, b, c)
}

// hashUint32 is PostgreSQL's hash_uint32: hashBytes of the four bytes of k.
func hashUint32(k uint32) uint32 {
	a := uint32(seed) + 4
	return final(a+k, a, a)
}

// hashInt64 is PostgreSQL's hashint8: a value that fits int4 hashes as int4.
func hashInt64(v int64) uint32 {
	lo, hi := uint32(v), uint32(uint64(v)>>32)
	if v < 0 {
		hi = ^hi
	}
	return hashUint32(lo ^ hi)
}

func mix(a, b, c uint32) (uint32, uint32, uint32) {
	a = (a - c) ^ bits.RotateLeft32(c, 4)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 6)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 8)
	b += a
	a = (a - c) ^ bits.RotateLeft32(c, 16)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 19)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 4)
	b += a
	return a, b, c
}

func final(a, b, c uint32) uint32 {
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	return (c ^ b) - bits.RotateLeft32(b, 24)
}

// Jump is the jump consistent hash of Lamping and Veach: it maps h to one of
// 0..n-1 so that growing n moves only the share of keys the new places get.
// It answers 0 when n < 2.
func Jump(h uint64, n int) int {
	b, j := int64(0), int64(0)
	for j < int64(n) {
		b = j
		h = h*2862933555777941757 + 1
		j = int64(float64(b+1) * (float64(int64(1)<<31) / float64((h>>33)+1)))
	}
	return int(b)
}

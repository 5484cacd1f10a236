package cdbhash

import (
	"encoding/binary"
	"math"
	"math/bits"
)

var be = binary.BigEndian

// hash is the PostgreSQL hash of one value in binary send format. It answers
// false if v is not in that format.
func (t *typ) hash(v []byte) (uint32, bool) {
	if t.size != 0 && len(v) != t.size {
		return 0, false
	}
	switch t.kind {
	case kindByte:
		return hashUint32(uint32(int32(int8(v[0])))), true
	case kindInt16:
		return hashUint32(uint32(int32(int16(be.Uint16(v))))), true
	case kindInt32:
		return hashUint32(be.Uint32(v)), true
	case kindInt64:
		return hashInt64(int64(be.Uint64(v))), true
	case kindFloat4:
		return hashFloat(float64(math.Float32frombits(be.Uint32(v)))), true
	case kindFloat8:
		return hashFloat(math.Float64frombits(be.Uint64(v))), true
	case kindBytes:
		return hashBytes(v), true
	case kindBPChar:
		for len(v) > 0 && v[len(v)-1] == ' ' {
			v = v[:len(v)-1]
		}
		return hashBytes(v), true
	case kindNumeric:
		return hashNumeric(v)
	case kindInterval:
		return hashInterval(v), true
	case kindTimeTZ:
		return hashInt64(int64(be.Uint64(v))) ^ hashUint32(be.Uint32(v[8:])), true
	case kindInet:
		return hashInet(v)
	case kindTID:
		return hashTID(v), true
	case kindBit:
		if len(v) < 4 || uint64(len(v)-4) != (uint64(be.Uint32(v))+7)/8 {
			return 0, false
		}
		return hashBytes(v[4:]), true
	case kindOIDVector:
		return hashOIDVector(v)
	case kindJSONB:
		return hashJSONB(v)
	case kindArray:
		return hashArray(t.elem, v)
	case kindRange:
		return hashRange(t.elem, v)
	}
	return 0, false
}

// hashFloat makes both zeros one and all NaNs one, as PostgreSQL does.
func hashFloat(f float64) uint32 {
	if f == 0 {
		return 0
	}
	u := math.Float64bits(f)
	if f != f {
		u = 0x7ff8000000000000
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], u)
	return hashBytes(b[:])
}

// Signs of the binary form of numeric. The special values have both high
// bits set.
const (
	numericPositive = 0x0000
	numericNegative = 0x4000
	numericSpecial  = 0xc000
)

// hashNumeric ignores sign and display scale, so that equal values hash
// equally however they were written.
func hashNumeric(v []byte) (uint32, bool) {
	if len(v) < 8 || len(v) != 8+2*int(be.Uint16(v)) {
		return 0, false
	}
	switch sign := be.Uint16(v[4:]); {
	case sign&numericSpecial == numericSpecial:
		return 0, true // NaN and the infinities
	case sign != numericPositive && sign != numericNegative:
		return 0, false
	}
	weight := int32(int16(be.Uint16(v[2:])))
	digits := v[8:]
	for len(digits) > 0 && digits[0] == 0 && digits[1] == 0 {
		digits = digits[2:]
		weight--
	}
	for n := len(digits); n > 0 && digits[n-1] == 0 && digits[n-2] == 0; n = len(digits) {
		digits = digits[:n-2]
	}
	if len(digits) == 0 {
		return 0xffffffff, true
	}
	// The server hashes its digits in memory order, low byte first.
	var stack [256]byte
	swapped := stack[:]
	if len(digits) > len(stack) {
		swapped = make([]byte, len(digits))
	}
	for i := 0; i < len(digits); i += 2 {
		swapped[i], swapped[i+1] = digits[i+1], digits[i]
	}
	return hashBytes(swapped[:len(digits)]) ^ uint32(weight), true
}

// hashInterval hashes the low 64 bits of the interval in microseconds, a
// month being 30 days.
func hashInterval(v []byte) uint32 {
	days := int64(int32(be.Uint32(v[8:]))) + 30*int64(int32(be.Uint32(v[12:])))
	return hashInt64(int64(be.Uint64(v)) + days*usecPerDay)
}

// hashInet hashes address family, prefix length and address. The fields
// between them, whether it is a cidr and the address's length, do not count.
func hashInet(v []byte) (uint32, bool) {
	if len(v) < 4 || len(v) != 4+int(v[3]) {
		return 0, false
	}
	if !(v[0] == 2 && v[3] == 4) && !(v[0] == 3 && v[3] == 16) {
		return 0, false
	}
	var b [18]byte
	n := copy(b[:], v[:2])
	n += copy(b[n:], v[4:])
	return hashBytes(b[:n]), true
}

// hashTID hashes a row address as it lies in memory: the block number's high
// half first, then its low half and the row's number in the block.
func hashTID(v []byte) uint32 {
	return hashBytes([]byte{v[1], v[0], v[3], v[2], v[5], v[4]})
}

// arrayIter walks the elements of the binary form of an array.
type arrayIter struct {
	rest []byte
	elem uint32 // element type oid
	left int    // elements not yet read
}

func newArrayIter(v []byte) (arrayIter, bool) {
	const maxDim = 6
	if len(v) < 12 || be.Uint32(v) > maxDim {
		return arrayIter{}, false
	}
	ndim := int(be.Uint32(v))
	it := arrayIter{elem: be.Uint32(v[8:]), rest: v[12:]}
	if len(it.rest) < 8*ndim {
		return arrayIter{}, false
	}
	n := uint64(1)
	for range ndim {
		n *= uint64(be.Uint32(it.rest))
		// Each element takes four bytes at least.
		if n > uint64(len(v))/4 {
			return arrayIter{}, false
		}
		it.rest = it.rest[8:]
	}
	if ndim > 0 {
		it.left = int(n)
	}
	return it, true
}

// next takes one element, nil if NULL.
func (it *arrayIter) next() ([]byte, bool) {
	it.left--
	return cutField(&it.rest)
}

// cutField takes a length-prefixed field off p, nil if its length says NULL.
func cutField(p *[]byte) ([]byte, bool) {
	b := *p
	if len(b) < 4 {
		return nil, false
	}
	n := int32(be.Uint32(b))
	b = b[4:]
	if n == -1 {
		*p = b
		return nil, true
	}
	if n < 0 || int(n) > len(b) {
		return nil, false
	}
	*p = b[n:]
	return b[:n:n], true
}

// hashArray combines the hashes of the elements as a polynomial in 31; the
// shape of the array does not count.
func hashArray(elem *typ, v []byte) (uint32, bool) {
	it, ok := newArrayIter(v)
	if !ok || it.elem != elem.oid {
		return 0, false
	}
	sum := uint32(1)
	for it.left > 0 {
		e, ok := it.next()
		if !ok {
			return 0, false
		}
		var x uint32
		if e != nil {
			if x, ok = elem.hash(e); !ok {
				return 0, false
			}
		}
		sum = sum*31 + x
	}
	return sum, len(it.rest) == 0
}

// hashOIDVector hashes the words of the vector as one string of bytes.
func hashOIDVector(v []byte) (uint32, bool) {
	it, ok := newArrayIter(v)
	if !ok || it.elem != oidOID {
		return 0, false
	}
	var stack [256]byte
	words := stack[:0]
	for it.left > 0 {
		e, ok := it.next()
		if !ok || len(e) != 4 {
			return 0, false
		}
		words = append(words, e[3], e[2], e[1], e[0])
	}
	return hashBytes(words), len(it.rest) == 0
}

// Flags of the binary form of a range.
const (
	rangeEmpty    = 0x01
	rangeLowerInf = 0x08
	rangeUpperInf = 0x10
)

// hashRange combines the flags and the bounds. The range must be in its
// canonical form, as PostgreSQL sends it: [1,2] of integers as [1,3).
func hashRange(elem *typ, v []byte) (uint32, bool) {
	if len(v) < 1 {
		return 0, false
	}
	flags, rest := v[0], v[1:]
	bound := func(inf byte) (uint32, bool) {
		if flags&(rangeEmpty|inf) != 0 {
			return 0, true
		}
		b, ok := cutField(&rest)
		if !ok || b == nil {
			return 0, false
		}
		return elem.hash(b)
	}
	lower, ok := bound(rangeLowerInf)
	if !ok {
		return 0, false
	}
	upper, ok := bound(rangeUpperInf)
	if !ok {
		return 0, false
	}
	sum := bits.RotateLeft32(hashUint32(uint32(flags))^lower, 1) ^ upper
	return sum, len(rest) == 0
}

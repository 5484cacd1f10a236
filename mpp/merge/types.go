package merge

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// kind is how values are compared.
type kind uint8

const (
	wordKind    kind = iota // by their w
	bytesKind               // by their b, byte by byte
	numericKind             // by their b, as the binary form of numeric
)

// value is a value of a key, in the form that is compared.
type value struct {
	null bool
	w    uint64
	b    []byte
}

// typ is a type whose order is known.
type typ struct {
	kind     kind
	collates bool
	text     func(b []byte) (value, error) // nil: only the binary form can be compared
	binary   func(b []byte) (value, error)
}

// types are those of PostgreSQL whose values are compared here as its default
// operators < and = do.
var types = map[uint32]typ{
	16:   {wordKind, false, boolText, unsigned(1)},
	17:   {bytesKind, false, nil, asIs},
	19:   {bytesKind, true, asIs, asIs},
	20:   {wordKind, false, intText, signed(8)},
	21:   {wordKind, false, intText, signed(2)},
	23:   {wordKind, false, intText, signed(4)},
	25:   {bytesKind, true, asIs, asIs},
	26:   {wordKind, false, oidText, unsigned(4)},
	700:  {wordKind, false, nil, float4},
	701:  {wordKind, false, nil, float8},
	1042: {bytesKind, true, padded, padded},
	1043: {bytesKind, true, asIs, asIs},
	1082: {wordKind, false, nil, signed(4)}, // dates and times count from 2000; infinity is the largest number
	1083: {wordKind, false, nil, signed(8)},
	1114: {wordKind, false, nil, signed(8)},
	1184: {wordKind, false, nil, signed(8)},
	1700: {numericKind, false, nil, numeric},
	2950: {bytesKind, false, asIs, asIs}, // hexadecimal digits in text form
}

// Comparable says whether the type with that pg_type.oid can be merged by. If it
// [Collates], that takes a collation that compares byte by byte.
func Comparable(oid uint32) bool {
	_, ok := types[oid]
	return ok
}

// Collates says whether the order of a type depends on a collation.
func Collates(oid uint32) bool { return types[oid].collates }

// NeedsBinary says whether values of a Comparable type can be compared in their
// binary form only: a column that is shown has to be sent a second time, hidden.
func NeedsBinary(oid uint32) bool { return types[oid].text == nil }

func asIs(b []byte) (value, error) { return value{b: b}, nil }

// padded is a char(n): blanks at its end mean nothing.
func padded(b []byte) (value, error) { return value{b: bytes.TrimRight(b, " ")}, nil }

var errForm = errors.New("a value has not the form of its type")

func boolText(b []byte) (value, error) {
	if len(b) != 1 || b[0] != 't' && b[0] != 'f' {
		return value{}, errForm
	}
	return value{w: uint64(b[0])}, nil // f before t
}

// ofSigned is a number that unsigned comparison puts in signed order.
func ofSigned(v int64) value { return value{w: uint64(v) ^ 1<<63} }

func intText(b []byte) (value, error) {
	neg := len(b) > 0 && b[0] == '-'
	digits := b
	if neg {
		digits = b[1:]
	}
	if len(digits) == 0 || len(digits) > 18 {
		v, err := strconv.ParseInt(string(b), 10, 64)
		return ofSigned(v), err
	}
	var v int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return value{}, errForm
		}
		v = v*10 + int64(c-'0')
	}
	if neg {
		v = -v
	}
	return ofSigned(v), nil
}

func oidText(b []byte) (value, error) {
	v, err := strconv.ParseUint(string(b), 10, 32)
	return value{w: v}, err
}

// unsigned reads a number of n bytes.
func unsigned(n int) func([]byte) (value, error) {
	return func(b []byte) (value, error) {
		if len(b) != n {
			return value{}, errForm
		}
		var v uint64
		for _, c := range b {
			v = v<<8 | uint64(c)
		}
		return value{w: v}, nil
	}
}

// signed reads a number of n bytes that may be negative.
func signed(n int) func([]byte) (value, error) {
	read, shift := unsigned(n), 64-8*n
	return func(b []byte) (value, error) {
		v, err := read(b)
		return ofSigned(int64(v.w<<shift) >> shift), err
	}
}

func float4(b []byte) (value, error) {
	if len(b) != 4 {
		return value{}, errForm
	}
	return ofFloat(float64(math.Float32frombits(binary.BigEndian.Uint32(b)))), nil
}

func float8(b []byte) (value, error) {
	if len(b) != 8 {
		return value{}, errForm
	}
	return ofFloat(math.Float64frombits(binary.BigEndian.Uint64(b))), nil
}

// ofFloat is a number in whose order floats are: NaN, whatever its bits, last of
// all, and the zeros equal.
func ofFloat(f float64) value {
	switch {
	case math.IsNaN(f):
		return value{w: math.MaxUint64}
	case f == 0:
		return value{w: 1 << 63}
	}
	bits := math.Float64bits(f)
	if bits>>63 != 0 {
		return value{w: ^bits}
	}
	return value{w: bits | 1<<63}
}

// The binary form of numeric: how many digits of base 10000, the power of 10000
// that the first one counts, the sign or what it is instead of a number, how
// many decimal digits are shown, the digits.
const (
	numericHeader = 8
	numericNeg    = 0x4000
	numericNaN    = 0xC000
	numericInf    = 0xD000
	numericNegInf = 0xF000
)

func numeric(b []byte) (value, error) {
	if len(b) < numericHeader || len(b) != numericHeader+2*int(binary.BigEndian.Uint16(b)) {
		return value{}, errForm
	}
	switch s := binary.BigEndian.Uint16(b[4:]); s {
	case 0, numericNeg, numericNaN, numericInf, numericNegInf:
		return value{b: b}, nil
	default:
		return value{}, fmt.Errorf("%w: a numeric with the sign %#x", errForm, s)
	}
}

// compareNumeric compares what numeric has let pass.
func compareNumeric(a, b []byte) int {
	x, y := numericRank(a), numericRank(b)
	if x != y || x != 1 && x != -1 {
		return cmp.Compare(x, y)
	}
	return x * compareDigits(a, b)
}

// numericRank parts numbers into -Infinity, negative ones, zero, positive ones,
// Infinity and NaN.
func numericRank(b []byte) int {
	switch binary.BigEndian.Uint16(b[4:]) {
	case numericNaN:
		return 3
	case numericInf:
		return 2
	case numericNegInf:
		return -2
	case numericNeg:
		if len(b) > numericHeader {
			return -1
		}
	default:
		if len(b) > numericHeader {
			return 1
		}
	}
	return 0
}

// compareDigits compares two numbers without their signs. PostgreSQL stores no
// zeros in front of the first digit or after the last one.
func compareDigits(a, b []byte) int {
	if c := cmp.Compare(int16(binary.BigEndian.Uint16(a[2:])), int16(binary.BigEndian.Uint16(b[2:]))); c != 0 {
		return c
	}
	return bytes.Compare(a[numericHeader:], b[numericHeader:])
}

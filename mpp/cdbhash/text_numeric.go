package cdbhash

// splitDecimal parts a decimal number without spaces into its sign and digits
// (as written, with the point), whether it is negative, and its power of ten.
// It answers false for anything else, and for absurdly large exponents.
func splitDecimal(s []byte) (mantissa []byte, neg bool, exp int, ok bool) {
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		neg = s[0] == '-'
		s = s[1:]
	}
	i, digits, points := 0, 0, 0
	for ; i < len(s) && (digit(s[i]) || s[i] == '.'); i++ {
		if s[i] == '.' {
			points++
		} else {
			digits++
		}
	}
	if digits == 0 || points > 1 {
		return nil, false, 0, false
	}
	mantissa = s[:i]
	if i == len(s) {
		return mantissa, neg, 0, true
	}
	if s[i] != 'e' && s[i] != 'E' {
		return nil, false, 0, false
	}
	s = s[i+1:]
	negExp := len(s) > 0 && s[0] == '-'
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		s = s[1:]
	}
	if !allDigits(s) || len(s) > 5 {
		return nil, false, 0, false
	}
	for _, c := range s {
		exp = exp*10 + int(c-'0')
	}
	if negExp {
		exp = -exp
	}
	return mantissa, neg, exp, true
}

const numericNaN = "\x00\x00\x00\x00\xc0\x00\x00\x00"

// numericSpecials are the binary forms of the values without digits, by how
// the server writes them.
var numericSpecials = map[string]string{
	"NaN":       numericNaN,
	"Infinity":  "\x00\x00\x00\x00\xd0\x00\x00\x20",
	"-Infinity": "\x00\x00\x00\x00\xf0\x00\x00\x20",
}

// Limits of numeric: digits before and after the decimal point.
const (
	maxNumericInt   = 131072
	maxNumericScale = 16383
)

// appendNumeric appends the binary form of a decimal number without spaces:
// count of base 10000 digits, weight of the first, sign, display scale, the
// digits without zeros at the ends.
func appendNumeric(dst, s []byte) ([]byte, bool) {
	mantissa, neg, exp, ok := splitDecimal(s)
	if !ok {
		return dst, false
	}
	// place is the power of ten of the digit at hand, counted from the first.
	intLen := len(mantissa)
	for i, c := range mantissa {
		if c == '.' {
			intLen = i
			break
		}
	}
	fracLen := max(len(mantissa)-intLen-1, 0)
	dscale := max(fracLen-exp, 0)
	if intLen+exp > maxNumericInt || dscale > maxNumericScale {
		return dst, false
	}
	place := intLen + exp - 1

	head := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	weight, ndigits, group := 0, 0, floorDiv4(place)
	var value uint16
	flush := func() {
		if ndigits == 0 {
			if value == 0 {
				return
			}
			weight = group
		}
		dst = be.AppendUint16(dst, value)
		ndigits++
	}
	for _, c := range mantissa {
		if c == '.' {
			continue
		}
		for ; group != floorDiv4(place); group-- {
			flush()
			value = 0
		}
		value += uint16(c-'0') * pow10[place-4*group]
		place--
	}
	flush()
	for n := len(dst); ndigits > 0 && dst[n-1] == 0 && dst[n-2] == 0; n = len(dst) {
		dst = dst[:n-2]
		ndigits--
	}
	if ndigits == 0 {
		weight, neg = 0, false
	}
	be.PutUint16(dst[head:], uint16(ndigits))
	be.PutUint16(dst[head+2:], uint16(int16(weight)))
	if neg {
		be.PutUint16(dst[head+4:], numericNegative)
	}
	be.PutUint16(dst[head+6:], uint16(dscale))
	return dst, true
}

var pow10 = [4]uint16{1, 10, 100, 1000}

// floorDiv4 divides by four, rounding down.
func floorDiv4(n int) int { return n >> 2 }

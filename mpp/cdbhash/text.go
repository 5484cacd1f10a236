package cdbhash

import (
	"bytes"
	"encoding/hex"
	"math"
	"net/netip"
	"strconv"
	"unicode/utf8"
)

// FromText is FromTextMod without a type modifier: for constants in SQL, and
// for columns declared without one.
func FromText(typeOID uint32, text []byte, dst []byte) ([]byte, bool) {
	return FromTextMod(typeOID, -1, text, dst)
}

// FromTextMod appends to dst the binary send format of the value that text
// is as input for a column of this built-in type with type modifier typmod
// (pg_attribute.atttypmod, -1 for none). It answers dst unchanged and false
// whenever the result is not certain: the text is no valid input, its meaning
// depends on session settings, the modifier would change the value, or the
// type or spelling is not one known here. The caller then asks PostgreSQL.
// The text must be in UTF-8, the encoding of the database. It is only read.
func FromTextMod(typeOID uint32, typmod int32, text, dst []byte) ([]byte, bool) {
	out, ok := fromText(typeOID, typmod, text, dst)
	if !ok {
		return dst, false
	}
	if out == nil {
		out = []byte{} // the empty value: nil would be NULL
	}
	return out, true
}

func fromText(typeOID uint32, typmod int32, text, dst []byte) ([]byte, bool) {
	switch typeOID {
	case oidInt2:
		return appendInt(dst, text, 2)
	case oidInt4:
		return appendInt(dst, text, 4)
	case oidInt8:
		return appendInt(dst, text, 8)
	case oidOID, oidXID, oidCID:
		s := trimSpace(text)
		if !allDigits(s) {
			return dst, false
		}
		u, err := strconv.ParseUint(string(s), 10, 32)
		return be.AppendUint32(dst, uint32(u)), err == nil
	case oidText, oidVarchar, oidBPChar, oidName:
		return appendString(dst, text, typeOID, typmod)
	case oidChar:
		switch {
		case len(text) == 0:
			return append(dst, 0), true
		case len(text) == 1 && text[0] < utf8.RuneSelf:
			return append(dst, text[0]), true
		}
		return dst, false
	case oidBool:
		return appendBool(dst, text)
	case oidBytea:
		return appendBytea(dst, text)
	case oidUUID:
		return appendUUID(dst, text)
	case oidFloat4, oidFloat8:
		return appendFloat(dst, text, types[typeOID].size)
	case oidNumeric:
		if form, special := numericSpecials[string(trimSpace(text))]; special {
			// An infinity fits no precision.
			return append(dst, form...), typmod < 4 || form == numericNaN
		}
		out, ok := appendNumeric(dst, trimSpace(text))
		if ok && typmod >= 4 {
			// The scale is an 11-bit signed number in the modifier's low bits.
			scale := int((typmod-4)&0x7ff^1024) - 1024
			dscale := int(be.Uint16(out[len(dst)+6:]))
			ok = scale >= dscale
		}
		return out, ok
	case oidDate:
		days, ok := parseWholeDate(trimSpace(text))
		return be.AppendUint32(dst, uint32(days)), ok
	case oidTime:
		us, frac, rest, ok := parseTime(trimSpace(text))
		ok = ok && len(rest) == 0 && (typmod < 0 || frac <= int(typmod))
		return be.AppendUint64(dst, uint64(us)), ok
	case oidTimestamp, oidTimestampTZ:
		us, ok := parseTimestamp(trimSpace(text), typmod, typeOID == oidTimestampTZ)
		return be.AppendUint64(dst, uint64(us)), ok
	case oidInet, oidCIDR:
		return appendInet(dst, text, typeOID == oidCIDR)
	case oidMacaddr:
		return appendMacaddr(dst, text)
	}
	return dst, false
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// trimSpace drops what C's isspace calls space at both ends.
func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// digit answers whether c is an ASCII digit.
func digit(c byte) bool { return c >= '0' && c <= '9' }

func allDigits(b []byte) bool {
	for _, c := range b {
		if !digit(c) {
			return false
		}
	}
	return len(b) > 0
}

func appendInt(dst, text []byte, size int) ([]byte, bool) {
	s := trimSpace(text)
	neg := len(s) > 0 && s[0] == '-'
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		s = s[1:]
	}
	if !allDigits(s) {
		return dst, false
	}
	limit := uint64(1) << (8*size - 1)
	if !neg {
		limit--
	}
	var u uint64
	for _, c := range s {
		if u > limit/10 {
			return dst, false
		}
		if u = u*10 + uint64(c-'0'); u > limit {
			return dst, false
		}
	}
	if neg {
		u = -u
	}
	switch size {
	case 2:
		return be.AppendUint16(dst, uint16(u)), true
	case 4:
		return be.AppendUint32(dst, uint32(u)), true
	}
	return be.AppendUint64(dst, u), true
}

func appendString(dst, text []byte, typeOID uint32, typmod int32) ([]byte, bool) {
	if bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text) {
		return dst, false
	}
	switch typeOID {
	case oidName:
		// Longer names are cut to fit a catalog column.
		if len(text) > 63 {
			return dst, false
		}
	case oidVarchar, oidBPChar:
		// The modifier counts characters and four bytes of length word.
		if limit := int(typmod) - 4; typmod >= 4 && len(text) > limit && utf8.RuneCount(text) > limit {
			return dst, false
		}
	}
	return append(dst, text...), true
}

// appendBool takes any unambiguous beginning of the words, as boolin does.
func appendBool(dst, text []byte) ([]byte, bool) {
	s := bytes.ToLower(trimSpace(text))
	if len(s) == 0 {
		return dst, false
	}
	for _, w := range [...]struct {
		word  string
		least int
		value byte
	}{
		{"true", 1, 1}, {"yes", 1, 1}, {"on", 2, 1}, {"1", 1, 1},
		{"false", 1, 0}, {"no", 1, 0}, {"off", 2, 0}, {"0", 1, 0},
	} {
		if len(s) >= w.least && len(s) <= len(w.word) && w.word[:len(s)] == string(s) {
			return append(dst, w.value), true
		}
	}
	return dst, false
}

// appendBytea takes the hex format and the escape format.
func appendBytea(dst, text []byte) ([]byte, bool) {
	if bytes.HasPrefix(text, []byte(`\x`)) {
		out, err := hex.AppendDecode(dst, text[2:])
		return out, err == nil
	}
	octal := func(c, last byte) bool { return c >= '0' && c <= last }
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return append(dst, text...), true
		}
		dst, text = append(dst, text[:i]...), text[i+1:]
		switch {
		case len(text) > 0 && text[0] == '\\':
			dst, text = append(dst, '\\'), text[1:]
		case len(text) > 2 && octal(text[0], '3') && octal(text[1], '7') && octal(text[2], '7'):
			dst, text = append(dst, (text[0]-'0')<<6|(text[1]-'0')<<3|(text[2]-'0')), text[3:]
		default:
			return dst, false
		}
	}
}

// appendUUID takes 32 hexadecimal digits, with the usual four dashes or none.
func appendUUID(dst, text []byte) ([]byte, bool) {
	var digits [32]byte
	switch len(text) {
	case 32:
		copy(digits[:], text)
	case 36:
		if text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
			return dst, false
		}
		n := copy(digits[:], text[:8])
		n += copy(digits[n:], text[9:13])
		n += copy(digits[n:], text[14:18])
		n += copy(digits[n:], text[19:23])
		copy(digits[n:], text[24:])
	default:
		return dst, false
	}
	out, err := hex.AppendDecode(dst, digits[:])
	return out, err == nil
}

// specialFloats are the values without digits as the server writes them.
var specialFloats = map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}

// appendFloat takes decimal notation and the server's own words only:
// strtod's other forms are rare and not the same everywhere.
func appendFloat(dst, text []byte, size int) ([]byte, bool) {
	s := trimSpace(text)
	f, special := specialFloats[string(s)]
	if !special {
		mantissa, _, _, ok := splitDecimal(s)
		if !ok {
			return dst, false
		}
		var err error
		f, err = strconv.ParseFloat(string(s), 8*size)
		if err != nil || f == 0 && bytes.ContainsAny(mantissa, "123456789") {
			return dst, false // out of range is an error there
		}
	}
	if size == 4 {
		return be.AppendUint32(dst, math.Float32bits(float32(f))), true
	}
	return be.AppendUint64(dst, math.Float64bits(f)), true
}

// appendInet takes full IPv4 and IPv6 addresses with an optional prefix
// length.
func appendInet(dst, text []byte, cidr bool) ([]byte, bool) {
	addrText, bitsText, slash := bytes.Cut(text, []byte{'/'})
	addr, err := netip.ParseAddr(string(addrText))
	if err != nil || addr.Zone() != "" {
		return dst, false
	}
	prefix := addr.BitLen()
	if slash {
		if !allDigits(bitsText) || len(bitsText) > 3 {
			return dst, false
		}
		if prefix, err = strconv.Atoi(string(bitsText)); err != nil || prefix > addr.BitLen() {
			return dst, false
		}
	}
	var isCIDR byte
	if cidr {
		isCIDR = 1
		if netip.PrefixFrom(addr, prefix).Masked().Addr() != addr {
			return dst, false
		}
	}
	if addr.Is4() {
		b := addr.As4()
		return append(append(dst, 2, byte(prefix), isCIDR, 4), b[:]...), true
	}
	b := addr.As16()
	return append(append(dst, 3, byte(prefix), isCIDR, 16), b[:]...), true
}

// appendMacaddr takes six pairs of digits parted by colons.
func appendMacaddr(dst, text []byte) ([]byte, bool) {
	if len(text) != 17 {
		return dst, false
	}
	for i := 2; i < 17; i += 3 {
		if text[i] != ':' {
			return dst, false
		}
	}
	ok := true
	for i := 0; i < 17 && ok; i += 3 {
		var b [1]byte
		_, err := hex.Decode(b[:], text[i:i+2])
		dst, ok = append(dst, b[0]), err == nil
	}
	return dst, ok
}

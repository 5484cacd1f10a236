package cdbhash

import "strconv"

// kind says how the bytes of a value are turned into what is hashed.
type kind uint8

const (
	kindNone      kind = iota
	kindByte           // one signed byte
	kindInt16          // sign-extended to 32 bits
	kindInt32          // a 32-bit word
	kindInt64          // hashint8
	kindFloat4         // widened to double
	kindFloat8         // 8 bytes, zeros and NaNs made one
	kindBytes          // as they are
	kindBPChar         // without trailing blanks
	kindNumeric        // base 10000 digits and weight
	kindInterval       // as microseconds
	kindTimeTZ         // time and zone
	kindInet           // family, bits, address
	kindTID            // block number halves and offset
	kindBit            // the bits, not their count
	kindOIDVector      // the words of the vector
	kindJSONB          // walk of the document
	kindArray          // elem
	kindRange          // elem
)

// typ is what is known of one type.
type typ struct {
	name   string
	kind   kind
	array  uint32 // oid of its array type, 0 if none
	size   int    // exact length of the binary form, 0 if it varies
	family uint32 // oid of the type that stands for its hash family, 0 = itself
	elem   *typ   // of arrays and ranges
	oid    uint32
}

// OIDs of the types this package's text conversion names.
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidOID         = 26
	oidXID         = 28
	oidCID         = 29
	oidCIDR        = 650
	oidFloat4      = 700
	oidFloat8      = 701
	oidMacaddr     = 829
	oidInet        = 869
	oidBPChar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestampTZ = 1184
	oidNumeric     = 1700
	oidUUID        = 2950
)

var scalarTypes = map[uint32]typ{
	oidBool:        {name: "boolean", kind: kindByte, array: 1000, size: 1},
	oidBytea:       {name: "bytea", kind: kindBytes, array: 1001},
	oidChar:        {name: `"char"`, kind: kindByte, array: 1002, size: 1},
	oidName:        {name: "name", kind: kindBytes, array: 1003, family: oidText},
	oidInt8:        {name: "bigint", kind: kindInt64, array: 1016, size: 8},
	oidInt2:        {name: "smallint", kind: kindInt16, array: 1005, size: 2, family: oidInt8},
	oidInt4:        {name: "integer", kind: kindInt32, array: 1007, size: 4, family: oidInt8},
	oidText:        {name: "text", kind: kindBytes, array: 1009},
	oidOID:         {name: "oid", kind: kindInt32, array: 1028, size: 4},
	27:             {name: "tid", kind: kindTID, array: 1010, size: 6},
	oidXID:         {name: "xid", kind: kindInt32, array: 1011, size: 4},
	oidCID:         {name: "cid", kind: kindInt32, array: 1012, size: 4},
	30:             {name: "oidvector", kind: kindOIDVector, array: 1013},
	24:             {name: "regproc", kind: kindInt32, array: 1008, size: 4, family: oidOID},
	2202:           {name: "regprocedure", kind: kindInt32, array: 2207, size: 4, family: oidOID},
	2203:           {name: "regoper", kind: kindInt32, array: 2208, size: 4, family: oidOID},
	2204:           {name: "regoperator", kind: kindInt32, array: 2209, size: 4, family: oidOID},
	2205:           {name: "regclass", kind: kindInt32, array: 2210, size: 4, family: oidOID},
	2206:           {name: "regtype", kind: kindInt32, array: 2211, size: 4, family: oidOID},
	3734:           {name: "regconfig", kind: kindInt32, array: 3735, size: 4, family: oidOID},
	3769:           {name: "regdictionary", kind: kindInt32, array: 3770, size: 4, family: oidOID},
	4089:           {name: "regnamespace", kind: kindInt32, array: 4090, size: 4, family: oidOID},
	4096:           {name: "regrole", kind: kindInt32, array: 4097, size: 4, family: oidOID},
	4191:           {name: "regcollation", kind: kindInt32, array: 4192, size: 4, family: oidOID},
	oidCIDR:        {name: "cidr", kind: kindInet, array: 651, family: oidInet},
	oidFloat4:      {name: "real", kind: kindFloat4, array: 1021, size: 4, family: oidFloat8},
	oidFloat8:      {name: "double precision", kind: kindFloat8, array: 1022, size: 8},
	774:            {name: "macaddr8", kind: kindBytes, array: 775, size: 8},
	oidMacaddr:     {name: "macaddr", kind: kindBytes, array: 1040, size: 6},
	oidInet:        {name: "inet", kind: kindInet, array: 1041},
	oidBPChar:      {name: "character", kind: kindBPChar, array: 1014},
	oidVarchar:     {name: "character varying", kind: kindBytes, array: 1015, family: oidText},
	oidDate:        {name: "date", kind: kindInt32, array: 1182, size: 4},
	oidTime:        {name: "time without time zone", kind: kindInt64, array: 1183, size: 8},
	oidTimestamp:   {name: "timestamp without time zone", kind: kindInt64, array: 1115, size: 8},
	oidTimestampTZ: {name: "timestamp with time zone", kind: kindInt64, array: 1185, size: 8},
	1186:           {name: "interval", kind: kindInterval, array: 1187, size: 16},
	1266:           {name: "time with time zone", kind: kindTimeTZ, array: 1270, size: 12},
	1560:           {name: "bit", kind: kindBit, array: 1561},
	1562:           {name: "bit varying", kind: kindBit, array: 1563, family: 1560},
	oidNumeric:     {name: "numeric", kind: kindNumeric, array: 1231},
	oidUUID:        {name: "uuid", kind: kindBytes, array: 2951, size: 16},
	3220:           {name: "pg_lsn", kind: kindInt64, array: 3221, size: 8},
	3802:           {name: "jsonb", kind: kindJSONB, array: 3807},
	5069:           {name: "xid8", kind: kindInt64, array: 271, size: 8},
}

// rangeTypes gives each range type's name, array type and element type.
var rangeTypes = map[uint32]struct {
	name        string
	array, elem uint32
}{
	3904: {"int4range", 3905, oidInt4},
	3906: {"numrange", 3907, oidNumeric},
	3908: {"tsrange", 3909, oidTimestamp},
	3910: {"tstzrange", 3911, oidTimestampTZ},
	3912: {"daterange", 3913, oidDate},
	3926: {"int8range", 3927, oidInt8},
}

// unhashable names the built-in types a user may try as a distribution key
// and that have no hash operator class.
var unhashable = map[uint32]string{
	114: "json", 142: "xml", 600: "point", 601: "lseg", 602: "path", 603: "box",
	604: "polygon", 628: "line", 718: "circle", 790: "money", 2249: "record",
	3614: "tsvector", 3615: "tsquery", 4072: "jsonpath", 1033: "aclitem",
	199: "json[]", 143: "xml[]", 1017: "point[]", 1018: "lseg[]", 1019: "path[]",
	1020: "box[]", 1027: "polygon[]", 629: "line[]", 719: "circle[]", 791: "money[]",
	3643: "tsvector[]", 3645: "tsquery[]",
}

// types is every hashable type by oid.
var types = buildTypes()

func buildTypes() map[uint32]*typ {
	m := make(map[uint32]*typ, 2*len(scalarTypes)+2*len(rangeTypes))
	add := func(oid uint32, t typ) *typ {
		t.oid = oid
		p := &t
		m[oid] = p
		if t.array != 0 {
			m[t.array] = &typ{name: t.name + "[]", kind: kindArray, elem: p, oid: t.array}
		}
		return p
	}
	for oid, t := range scalarTypes {
		add(oid, t)
	}
	for oid, r := range rangeTypes {
		add(oid, typ{name: r.name, kind: kindRange, array: r.array, elem: m[r.elem]})
	}
	return m
}

// Hashable says whether a column of the built-in type with this oid can be a
// distribution key.
func Hashable(oid uint32) bool { return types[oid] != nil }

// Family answers which types hash equal values equally and can so be
// distribution keys of co-located tables: two types do when their answers
// are equal and not 0. The answer is the oid of one type of the family;
// bigint for smallint, integer and bigint, text for text, character varying
// and name, double precision for the floats, inet for inet and cidr, oid for
// oid and the reg types; bit for both bit types; any other hashable type is a
// family of its own. It is 0 for what cannot be hashed.
func Family(oid uint32) uint32 {
	t := types[oid]
	switch {
	case t == nil:
		return 0
	case t.family != 0:
		return t.family
	}
	return oid
}

func typeName(oid uint32) string {
	if t := types[oid]; t != nil {
		return t.name
	}
	if n, ok := unhashable[oid]; ok {
		return n
	}
	return "with oid " + strconv.FormatUint(uint64(oid), 10)
}

package randomsql

// A column's name says its kind, so that joins by USING fit.
const (
	kindInt   = 'i'
	kindText  = 't'
	kindNum   = 'n'
	kindDate  = 'd'
	kindBool  = 'b'
	kindReal  = 'r'
	kindChar  = 'c'
	kindUUID  = 'u'
	kindTime  = 'l'
	kindStamp = 'm' // without time zone
	kindZoned = 'v' // with time zone
	kindBytes = 'w'
)

// allKinds are the kinds that are drawn where nothing says which.
var allKinds = []byte{kindInt, kindText, kindNum, kindDate, kindBool, kindReal, kindChar, kindUUID, kindTime, kindStamp, kindZoned, kindBytes}

// alike are kinds that PostgreSQL compares with each other.
var alike = map[byte]string{kindInt: "1", kindNum: "1", kindReal: "1", kindDate: "2", kindStamp: "2", kindZoned: "2"}

var columnKinds = map[string]byte{"a": kindInt, "b": kindInt, "c": kindText, "d": kindNum, "e": kindDate, "f": kindBool, "g": kindReal, "h": kindText,
	"k": kindChar, "u": kindUUID, "l": kindTime, "m": kindStamp, "v": kindZoned, "w": kindBytes}

var kindTypes = map[byte][]string{
	kindInt: {"int", "bigint", "smallint"}, kindText: {"text", "varchar(20)", "text", "text", "varchar(20)", `text collate "C"`},
	kindNum: {"numeric", "numeric(10,2)"}, kindDate: {"date"}, kindBool: {"bool"}, kindReal: {"float8", "float4"},
	kindChar: {"char(4)", "char(6)"}, kindUUID: {"uuid"}, kindTime: {"time", "time(3)"}, kindStamp: {"timestamp", "timestamp(3)"},
	kindZoned: {"timestamptz"}, kindBytes: {"bytea"},
}

// paramTypes are the types of parameters of each kind.
var paramTypes = map[byte]string{kindInt: "integer", kindText: "text", kindNum: "numeric", kindDate: "date"}

// ParamOIDs are the types of parameters as the protocol calls them.
var ParamOIDs = map[string]uint32{"integer": 23, "text": 25, "numeric": 1700, "date": 1082}

const uuidStart = "00000000-0000-4000-8000-00000000000"

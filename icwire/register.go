package icwire

import "encoding/binary"

// Registration is the first thing a sender says on a connection of type tcp:
// who it is and for which motion the connection is. Eight 32-bit integers:
//
//	offset  field
//	     0  length of the message, 32
//	     4  receiving slice
//	     8  sending slice
//	    12  content id of the sender
//	    16  port of the sender's own listener
//	    20  pid of the sender
//	    24  session id
//	    28  command id
type Registration struct {
	RecvSlice  int32
	SendSlice  int32
	SrcContent int32
	SrcPort    int32 // informative; 0 when the sender has no listener
	SrcPid     int32
	Session    int32
	Command    uint32
}

// RegistrationLen is the length of the message in bytes.
const RegistrationLen = 32

// Append appends the message to dst and returns the longer slice.
func (r Registration) Append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, RegistrationLen)
	for _, v := range [...]int32{r.RecvSlice, r.SendSlice, r.SrcContent, r.SrcPort, r.SrcPid, r.Session} {
		dst = le.AppendUint32(dst, uint32(v))
	}
	return le.AppendUint32(dst, r.Command)
}

// DecodeRegistration reads the message at the start of src, which may go on
// after it. It returns ErrShort when src is too short, and a *ProtocolError as
// soon as the length or a field shows that it is no registration message.
func DecodeRegistration(src []byte) (Registration, error) {
	le := binary.LittleEndian
	if len(src) >= 4 {
		if n := le.Uint32(src); n != RegistrationLen {
			return Registration{}, protocolErrorf("registration message of length %d, not %d", n, RegistrationLen)
		}
	}
	if len(src) < RegistrationLen {
		return Registration{}, ErrShort
	}
	field := func(i int) int32 { return int32(le.Uint32(src[4*i:])) }
	r := Registration{
		RecvSlice: field(1), SendSlice: field(2),
		SrcContent: field(3), SrcPort: field(4), SrcPid: field(5),
		Session: field(6), Command: le.Uint32(src[28:]),
	}
	switch {
	case r.SendSlice < 0 || r.SendSlice > 1<<15-1 || r.RecvSlice < 0 || r.RecvSlice > 1<<15-1:
		return Registration{}, protocolErrorf("registration message of slices %d to %d", r.SendSlice, r.RecvSlice)
	case r.SrcContent < -1 || r.SrcContent > 1<<15-1:
		return Registration{}, protocolErrorf("registration message of content id %d", r.SrcContent)
	case r.SrcPort < 0 || r.SrcPort > 1<<16-1:
		return Registration{}, protocolErrorf("registration message with listener port %d", r.SrcPort)
	}
	return r, nil
}

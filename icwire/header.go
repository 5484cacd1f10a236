package icwire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The proxy packet. One proxy connection carries nothing else:
//
//	offset  type  field         (offsets of Magic36; Plain32 has no magic,
//	                             everything comes 4 bytes earlier)
//	     0  u32   magic         0xBADDCAFE
//	     4  u16   len           header included
//	     6  u16   type
//	     8  i16   src content
//	    10  u16   src dbid
//	    12  i32   src pid
//	    16  i16   dst content
//	    18  u16   dst dbid
//	    20  i32   dst pid
//	    24  i32   session
//	    28  u32   command
//	    32  i16   send slice
//	    34  i16   recv slice
//
// Integers are little-endian, as on every platform Greenplum runs on.
const (
	Magic = 0xBADDCAFE

	// MinHeaderLen and MaxHeaderLen are the lengths of the two headers.
	MinHeaderLen = 32
	MaxHeaderLen = 36
	// MaxPacketLen is the longest packet the len field can express.
	MaxPacketLen = 1<<16 - 1
	// DefaultPayload is gp_max_packet_size as configured unless told
	// otherwise: a Greenplum proxy closes a connection that brings a packet
	// with a longer payload.
	DefaultPayload = 8192
)

// Type says what a proxy packet is for.
type Type uint16

// The packet types, by the connection they travel on.
//
//	dialler  ── PeerHello ──────────> acceptor   once, first
//	dialler  <────── PeerHelloAck ── acceptor    once, first
//	sender's ── Data ───────────────> receiver's proxy
//	sender's <──────────── DataAck ── receiver's proxy
//	proxy    <─────────── Bye ──────> proxy      one each way, last
//	backend  ── Hello ──────────────> proxy      unix socket, once, first
//	backend  <──────────── HelloAck ── proxy     then raw ic-tcp packets
//	sender   ── Whole ──────────────> proxy      unix socket, any number
//	sender   <───── HelloAck or Bye ── proxy     one for each Whole, in order
//	receiver ── Wait ───────────────> proxy      unix socket, any number
//	receiver <───── HelloAck or Bye ── proxy     one for each Wait, in order
//	receiver <── Whole, Bye or Lost ── proxy     one for each HelloAck, when it comes
//
// Between two Trunkline proxies that have agreed on it, DataAck carries a
// payload of 8 bytes: how many bytes the sender may have sent since the
// connection began, with the highest bit set if it was sent behind a Bye. The types after DataAck
// are Trunkline's alone. Ping, Pong and Free carry 8 bytes too and are of no
// logical connection. Whole carries all that a sender has: it is Hello, stream
// and end in one, and the connection is there for the next. Bye as its answer
// says that the sender has to say Hello. Wait is how a receiver gets a stream
// whole: Bye then says that it has to say Hello, as the stream is not complete or
// too long, Lost that the stream has gone with the connection to the peer. A second
// Wait with StopByte behind it passes that on to the sender; it has no answer. Whole
// and Wait go by Magic36 only.
const (
	Data         Type = 0
	PeerHello    Type = 1
	PeerHelloAck Type = 2
	PeerQuit     Type = 3 // defined by Greenplum, never sent
	Hello        Type = 4
	HelloAck     Type = 5
	Bye          Type = 6
	DataAck      Type = 7
	Ping         Type = 8  // anything; comes back as Pong
	Pong         Type = 9  // what the Ping carried
	Free         Type = 10 // how many bytes every connection may send without a grant
	Lost         Type = 11 // what this connection had for the peer went with the trunk before
	Whole        Type = 12 // a whole stream
	Wait         Type = 13 // a receiver takes its stream whole
)

var typeNames = [...]string{"DATA", "PEER_HELLO", "PEER_HELLO_ACK", "PEER_QUIT", "HELLO", "HELLO_ACK", "BYE", "DATA_ACK", "PING", "PONG", "FREE", "LOST", "WHOLE", "WAIT"}

// String returns the name Greenplum's logs use, such as "PEER_HELLO".
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("TYPE_%d", uint16(t))
}

// Dialect is which of the two headers a cluster speaks. One cluster speaks
// one dialect.
type Dialect uint8

const (
	// Magic36 is the 36-byte header with the magic: Greenplum 6.24 and 7.
	Magic36 Dialect = iota
	// Plain32 is the 32-byte header without it: Greenplum 6.10 to 6.23 and
	// Apache Cloudberry.
	Plain32
)

// String returns "magic36" or "plain32".
func (d Dialect) String() string {
	if d == Plain32 {
		return "plain32"
	}
	return "magic36"
}

// HeaderLen is the length of the dialect's header in bytes.
func (d Dialect) HeaderLen() int {
	if d == Plain32 {
		return 32
	}
	return 36
}

// Header is a decoded proxy packet header.
type Header struct {
	// Len is the length of the packet in bytes, header included. Append
	// takes 0 for "header only".
	Len  uint16
	Type Type

	SrcContent int16
	SrcDbid    uint16
	SrcPid     int32
	DstContent int16
	DstDbid    uint16
	DstPid     int32

	Session   int32
	Command   uint32
	SendSlice int16
	RecvSlice int16
}

// ErrShort says that more bytes are needed to tell.
var ErrShort = errors.New("icwire: not enough bytes")

// A ProtocolError says that the bytes are not a proxy packet. The stream they
// came from cannot be used further: there is no way to find the next packet.
type ProtocolError struct {
	Reason string
}

func (e *ProtocolError) Error() string { return "icwire: " + e.Reason }

func protocolErrorf(format string, args ...any) error {
	return &ProtocolError{Reason: fmt.Sprintf(format, args...)}
}

// Append appends the header in dialect d to dst and returns the longer slice.
// A Len of 0 is written as the header's own length.
func (h Header) Append(dst []byte, d Dialect) []byte {
	if h.Len == 0 {
		h.Len = uint16(d.HeaderLen())
	}
	le := binary.LittleEndian
	if d == Magic36 {
		dst = le.AppendUint32(dst, Magic)
	}
	dst = le.AppendUint16(dst, h.Len)
	dst = le.AppendUint16(dst, uint16(h.Type))
	dst = le.AppendUint16(dst, uint16(h.SrcContent))
	dst = le.AppendUint16(dst, h.SrcDbid)
	dst = le.AppendUint32(dst, uint32(h.SrcPid))
	dst = le.AppendUint16(dst, uint16(h.DstContent))
	dst = le.AppendUint16(dst, h.DstDbid)
	dst = le.AppendUint32(dst, uint32(h.DstPid))
	dst = le.AppendUint32(dst, uint32(h.Session))
	dst = le.AppendUint32(dst, h.Command)
	dst = le.AppendUint16(dst, uint16(h.SendSlice))
	return le.AppendUint16(dst, uint16(h.RecvSlice))
}

// Decode reads the header at the start of src, which may go on after it. It
// returns ErrShort when src is too short for a header, and a *ProtocolError
// when the magic, the length or the type is impossible. It keeps no reference
// to src.
func Decode(src []byte, d Dialect) (Header, error) {
	n := d.HeaderLen()
	if len(src) < n {
		return Header{}, ErrShort
	}
	le := binary.LittleEndian
	b := src[:n]
	if d == Magic36 {
		if m := le.Uint32(b); m != Magic {
			return Header{}, protocolErrorf("magic is %#08x, not %#08x", m, uint32(Magic))
		}
		b = b[4:]
	}
	h := Header{
		Len:        le.Uint16(b[0:]),
		Type:       Type(le.Uint16(b[2:])),
		SrcContent: int16(le.Uint16(b[4:])),
		SrcDbid:    le.Uint16(b[6:]),
		SrcPid:     int32(le.Uint32(b[8:])),
		DstContent: int16(le.Uint16(b[12:])),
		DstDbid:    le.Uint16(b[14:]),
		DstPid:     int32(le.Uint32(b[16:])),
		Session:    int32(le.Uint32(b[20:])),
		Command:    le.Uint32(b[24:]),
		SendSlice:  int16(le.Uint16(b[28:])),
		RecvSlice:  int16(le.Uint16(b[30:])),
	}
	if int(h.Len) < n {
		return Header{}, protocolErrorf("packet length %d is less than the header's %d", h.Len, n)
	}
	if int(h.Type) >= len(typeNames) {
		return Header{}, protocolErrorf("unknown packet type %d", uint16(h.Type))
	}
	return h, nil
}

// DetectDialect tells the dialect from the first bytes of a connection, which
// both sides open with one of the four hello packets. Four bytes are enough;
// with fewer it returns ErrShort as long as they may still become a hello, and
// a *ProtocolError as soon as they cannot.
func DetectDialect(first []byte) (Dialect, error) {
	magic := [4]byte{0xfe, 0xca, 0xdd, 0xba}
	n := min(len(first), 4)
	if string(first[:n]) == string(magic[:n]) {
		if n == 4 {
			return Magic36, nil
		}
		return 0, ErrShort
	}
	for _, t := range [...]Type{PeerHello, PeerHelloAck, Hello, HelloAck} {
		want := [4]byte{32, 0, byte(t), 0}
		if string(first[:n]) == string(want[:n]) {
			if n == 4 {
				return Plain32, nil
			}
			return 0, ErrShort
		}
	}
	return 0, protocolErrorf("the first bytes % x are no proxy packet", first[:n])
}

// Next takes the first packet off buf, the unread part of a stream: its
// header, its payload (a part of buf, not a copy) and the number of bytes it
// occupies. When buf does not hold a whole packet yet it returns ErrShort,
// with the header and n set once the header is complete, so that the caller
// knows how much is missing. A packet longer than maxLen bytes, header
// included, is a *ProtocolError before any of its payload has to be held.
func Next(buf []byte, d Dialect, maxLen int) (h Header, payload []byte, n int, err error) {
	h, err = Decode(buf, d)
	if err != nil {
		return Header{}, nil, 0, err
	}
	n = int(h.Len)
	if n > maxLen {
		return Header{}, nil, 0, protocolErrorf("packet of %d bytes is longer than the %d allowed", n, maxLen)
	}
	if len(buf) < n {
		return h, nil, n, ErrShort
	}
	return h, buf[d.HeaderLen():n:n], n, nil
}

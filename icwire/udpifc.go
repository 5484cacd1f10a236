package icwire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// The udpifc packet: one datagram each, this header and, in data packets,
// whole tuple chunks up to the end. Sixteen 32-bit integers:
//
//	offset  field
//	     0  motion node: the sending slice
//	     4  pid of the sender
//	     8  port of the sender's data socket
//	    12  pid of the receiver
//	    16  port of the receiver's data socket
//	    20  session id
//	    24  interconnect instance: which plan of the session
//	    28  receiving slice
//	    32  sending slice
//	    36  content id of the sender
//	    40  content id of the receiver
//	    44  CRC-32C of the whole packet with 0 here; 0 unless gp_interconnect_full_crc
//	    48  flags
//	    52  length in bytes, header included
//	    56  seq
//	    60  extra seq
//
// Source and destination are those of the rows, in the packets of a receiver
// too: both directions of a connection carry the same identity.
//
//	packet      flags                      seq                  extra seq
//	data        0 or EOS                   its number, from 1   -
//	ack         ACK CAPACITY               last without a gap   last one consumed
//	stop        STOP ACK CAPACITY          last without a gap   the same
//	disorder    DISORDER                   what triggered it    last without a gap
//	duplicate   DUPLICATE                  the duplicate        last without a gap
//	nak         NAK                        as it came           as it came
//	status      CAPACITY, no body          last one sent        -
//	abort       ABORT and more, no body    0                    0
//
// Data and status come from the sender, an abort from either end, all else from
// the receiver; what comes from a receiver has RECEIVER_TO_SENDER too. The body
// of a disorder packet is the numbers that are missing.
const UDPHeaderLen = 64

// MaxMissing is how many missing numbers a disorder packet names at most.
const MaxMissing = 4

// UDPFlags say what a udpifc packet is for.
type UDPFlags uint32

// The flags. Abort is Trunkline's: it says that this end has failed. It is
// put on packets that a Greenplum peer takes for something harmless, with
// UDPCapacity towards a receiver (a status query), with UDPNak towards a
// sender (which ignores it).
const (
	UDPToSender  UDPFlags = 1
	UDPAck       UDPFlags = 2
	UDPStop      UDPFlags = 4
	UDPEOS       UDPFlags = 8
	UDPNak       UDPFlags = 16
	UDPDisorder  UDPFlags = 32
	UDPDuplicate UDPFlags = 64
	UDPCapacity  UDPFlags = 128
	UDPAbort     UDPFlags = 256
)

var udpFlagNames = [...]string{"RECEIVER_TO_SENDER", "ACK", "STOP", "EOS", "NAK", "DISORDER", "DUPLICATE", "CAPACITY", "ABORT"}

// String lists the flags by name: "ACK|CAPACITY"; "DATA" for none.
func (f UDPFlags) String() string {
	var names []string
	for i, name := range udpFlagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if rest := f >> len(udpFlagNames); rest != 0 {
		names = append(names, fmt.Sprintf("%#x", uint32(rest)<<len(udpFlagNames)))
	}
	if len(names) == 0 {
		return "DATA"
	}
	return strings.Join(names, "|")
}

// UDPKey is the identity of a udpifc connection, the same at both ends. It is
// comparable.
type UDPKey struct {
	Session    int32
	Instance   uint32
	SendSlice  int32
	RecvSlice  int32
	SrcContent int32
	SrcPid     int32
	DstContent int32
	DstPid     int32
}

// String prints the key as Greenplum's logs print their own.
func (k UDPKey) String() string {
	return fmt.Sprintf("con%d,ic%d,slice[%d->%d] seg%d:p%d->seg%d:p%d",
		k.Session, k.Instance, k.SendSlice, k.RecvSlice, k.SrcContent, k.SrcPid, k.DstContent, k.DstPid)
}

// UDPHeader is a decoded udpifc header. Its length and CRC are not in it: they
// follow from the packet.
type UDPHeader struct {
	UDPKey
	MotionNode int32
	SrcPort    int32 // 0 when the sender has no data socket
	DstPort    int32
	Flags      UDPFlags
	Seq        uint32
	Extra      uint32
}

// Put writes the header into the first UDPHeaderLen bytes of packet, which is
// complete otherwise. With crc the checksum is filled in.
func (h *UDPHeader) Put(packet []byte, crc bool) {
	_ = packet[UDPHeaderLen-1]
	le := binary.LittleEndian
	for i, v := range [...]uint32{
		uint32(h.MotionNode), uint32(h.SrcPid), uint32(h.SrcPort), uint32(h.DstPid), uint32(h.DstPort),
		uint32(h.Session), h.Instance, uint32(h.RecvSlice), uint32(h.SendSlice),
		uint32(h.SrcContent), uint32(h.DstContent), 0, uint32(h.Flags), uint32(len(packet)), h.Seq, h.Extra,
	} {
		le.PutUint32(packet[4*i:], v)
	}
	if crc {
		le.PutUint32(packet[udpCRC:], crc32.Checksum(packet, castagnoli))
	}
}

const udpCRC = 44 // where the checksum is

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// DecodeUDP reads a datagram. The body is a part of it, not a copy. What is
// shorter than a header, or of another length than it says, is a
// *ProtocolError. The checksum is not looked at.
func DecodeUDP(packet []byte) (h UDPHeader, body []byte, err error) {
	if len(packet) < UDPHeaderLen {
		return h, nil, protocolErrorf("a datagram of %d bytes is shorter than the udpifc header", len(packet))
	}
	le := binary.LittleEndian
	if n := le.Uint32(packet[52:]); int64(n) != int64(len(packet)) {
		return h, nil, protocolErrorf("a datagram of %d bytes says it has %d", len(packet), n)
	}
	field := func(i int) int32 { return int32(le.Uint32(packet[4*i:])) }
	return UDPHeader{
		MotionNode: field(0), SrcPort: field(2), DstPort: field(4),
		UDPKey: UDPKey{
			SrcPid: field(1), DstPid: field(3), Session: field(5), Instance: uint32(field(6)),
			RecvSlice: field(7), SendSlice: field(8), SrcContent: field(9), DstContent: field(10),
		},
		Flags: UDPFlags(field(12)), Seq: uint32(field(14)), Extra: uint32(field(15)),
	}, packet[UDPHeaderLen:len(packet):len(packet)], nil
}

// CheckUDP says whether the checksum of a datagram that DecodeUDP took is
// right. It leaves packet as it was, but writes to it meanwhile.
func CheckUDP(packet []byte) bool {
	le := binary.LittleEndian
	want := le.Uint32(packet[udpCRC:])
	le.PutUint32(packet[udpCRC:], 0)
	got := crc32.Checksum(packet, castagnoli)
	le.PutUint32(packet[udpCRC:], want)
	return got == want
}

// AppendMissing appends the body of a disorder packet. Numbers beyond
// MaxMissing are left out.
func AppendMissing(dst []byte, seqs []uint32) []byte {
	for _, s := range seqs[:min(len(seqs), MaxMissing)] {
		dst = binary.LittleEndian.AppendUint32(dst, s)
	}
	return dst
}

// Missing appends to dst the numbers in the body of a disorder packet. A body
// that is no list of at most MaxMissing numbers is a *ProtocolError.
func Missing(dst []uint32, body []byte) ([]uint32, error) {
	if len(body)%4 != 0 || len(body) > 4*MaxMissing {
		return dst, protocolErrorf("a disorder packet with a body of %d bytes", len(body))
	}
	for ; len(body) > 0; body = body[4:] {
		dst = append(dst, binary.LittleEndian.Uint32(body))
	}
	return dst, nil
}

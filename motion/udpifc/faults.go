package udpifc

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"syscall"

	"github.com/trunkline-db/trunkline/icwire"
)

// Fault is a kind of fault, a bit of gp_udpic_fault_inject_bitmap. The numbers
// are those of Greenplum's builds with assertions; bits without a name here do
// nothing.
type Fault uint

// The faults. Each befalls a datagram that is about to be sent.
const (
	FaultShortHeader    Fault = 0  // half a header is sent
	FaultShortPacket    Fault = 1  // the last byte is left out
	FaultCRC            Fault = 2  // the checksum is wrong, which gp_interconnect_full_crc notices
	FaultNoLength       Fault = 3  // the header says that it has 0 bytes
	FaultNegativeLength Fault = 4  // or fewer
	FaultMismatch       Fault = 5  // it is of a session that is not there
	FaultEAGAIN         Fault = 16 // the kernel has no room: it is lost
	FaultEINTR          Fault = 17 // a signal comes: it is sent a little later
	FaultEWOULDBLOCK    Fault = 18 // as FaultEAGAIN
	FaultNetInterface   Fault = 19 // the network is down: the motion fails
	FaultDuplicate      Fault = 24 // it is sent twice
	FaultRecvZero       Fault = 25 // the receiver gets nothing of it
)

// allFaults are the bits that do something.
const allFaults = 1<<FaultShortHeader | 1<<FaultShortPacket | 1<<FaultCRC | 1<<FaultNoLength | 1<<FaultNegativeLength | 1<<FaultMismatch |
	1<<FaultEAGAIN | 1<<FaultEINTR | 1<<FaultEWOULDBLOCK | 1<<FaultNetInterface | 1<<FaultDuplicate | 1<<FaultRecvZero

// Offsets in the header, of what faults change.
const (
	sessionAt = 20
	crcAt     = 44
	lengthAt  = 52
)

// faulty sends a datagram that one of the faults befalls, by lot. b stays as it
// is: it may have to be sent again.
func (ic *Interconnect) faulty(s packetConn, b []byte, to netip.AddrPort, faults uint32) error {
	for skip := rand.IntN(bits.OnesCount32(faults)); skip > 0; skip-- {
		faults &= faults - 1
	}
	kind := Fault(bits.TrailingZeros32(faults))
	switch kind {
	case FaultEAGAIN, FaultEWOULDBLOCK:
		return nil
	case FaultNetInterface:
		return syscall.ENETDOWN
	case FaultEINTR:
		return s.send(b, to)
	case FaultDuplicate:
		if err := s.send(b, to); err != nil {
			return err
		}
		return s.send(b, to)
	case FaultShortHeader:
		return s.send(b[:icwire.UDPHeaderLen/2], to)
	case FaultShortPacket:
		return s.send(b[:len(b)-1], to)
	case FaultRecvZero:
		return s.send(nil, to)
	}
	bad := append([]byte(nil), b...)
	at, v := crcAt, ^binary.LittleEndian.Uint32(b[crcAt:])
	switch kind {
	case FaultNoLength:
		at, v = lengthAt, 0
	case FaultNegativeLength:
		at, v = lengthAt, 1<<31
	case FaultMismatch:
		at, v = sessionAt, 1<<31
	}
	binary.LittleEndian.PutUint32(bad[at:], v)
	return s.send(bad, to)
}

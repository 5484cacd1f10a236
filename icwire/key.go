package icwire

import "fmt"

// End is one end of a logical connection: a backend of an instance.
type End struct {
	Content int16
	Dbid    uint16
	// Pid is the backend's process id, or whatever else tells the live
	// backends of one instance apart.
	Pid int32
}

func (e End) String() string {
	return fmt.Sprintf("seg%d:dbid%d:p%d", e.Content, e.Dbid, e.Pid)
}

// Key names a logical connection as seen from one of its ends: one pair of a
// sending and a receiving backend of one motion. Which of the two sends is not
// in the key: Greenplum's has no such field either.
type Key struct {
	Session   int32
	Command   uint32
	SendSlice int16
	RecvSlice int16
	Local     End
	Remote    End
}

// ID is the part of a Key that identifies the logical connection. Content ids
// and session are informative, as in Greenplum. It is comparable.
type ID struct {
	Pair
	Command uint32
}

// Pair is an ID without its command: two backends and the slices they run. A
// backend keeps its pid over commands, so the same pair comes back with a
// higher command.
type Pair struct {
	LocalDbid  uint16
	RemoteDbid uint16
	LocalPid   int32
	RemotePid  int32
	SendSlice  int16
	RecvSlice  int16
}

// ID returns the identifying part of k.
func (k Key) ID() ID {
	return ID{
		Pair: Pair{
			LocalDbid: k.Local.Dbid, LocalPid: k.Local.Pid,
			RemoteDbid: k.Remote.Dbid, RemotePid: k.Remote.Pid,
			SendSlice: k.SendSlice, RecvSlice: k.RecvSlice,
		},
		Command: k.Command,
	}
}

// Flip returns the same logical connection as seen from its other end.
func (k Key) Flip() Key {
	k.Local, k.Remote = k.Remote, k.Local
	return k
}

// String prints the key as Greenplum's logs do:
// con7,cmd3,slice[2->1] seg0:dbid2:p236979->seg1:dbid3:p236982.
func (k Key) String() string {
	return fmt.Sprintf("con%d,cmd%d,slice[%d->%d] %v->%v", k.Session, k.Command, k.SendSlice, k.RecvSlice, k.Local, k.Remote)
}

// Header returns the header of a packet of type t from the local to the remote
// end of k, with a payload of n bytes.
func (k Key) Header(t Type, n int, d Dialect) Header {
	return Header{
		Len: uint16(d.HeaderLen() + n), Type: t,
		SrcContent: k.Local.Content, SrcDbid: k.Local.Dbid, SrcPid: k.Local.Pid,
		DstContent: k.Remote.Content, DstDbid: k.Remote.Dbid, DstPid: k.Remote.Pid,
		Session: k.Session, Command: k.Command, SendSlice: k.SendSlice, RecvSlice: k.RecvSlice,
	}
}

// Src is the end the packet comes from.
func (h Header) Src() End { return End{h.SrcContent, h.SrcDbid, h.SrcPid} }

// Dst is the end the packet goes to.
func (h Header) Dst() End { return End{h.DstContent, h.DstDbid, h.DstPid} }

// SrcKey is the key of the packet's logical connection at its source. It is
// the key of the backend that says Hello with this header.
func (h Header) SrcKey() Key {
	return Key{h.Session, h.Command, h.SendSlice, h.RecvSlice, h.Src(), h.Dst()}
}

// DstKey is the key of the packet's logical connection at its destination. It
// is the key of the backend that gets HelloAck with this header.
func (h Header) DstKey() Key { return h.SrcKey().Flip() }

// String prints the packet as Greenplum's logs do: its type, length and key.
func (h Header) String() string {
	return fmt.Sprintf("%v [%v] len %d", h.Type, h.SrcKey(), h.Len)
}

// HelloAck returns the proxy's answer to the backend's Hello h: the two ends
// swapped, all else as it came.
func (h Header) HelloAck() Header {
	h.SrcContent, h.DstContent = h.DstContent, h.SrcContent
	h.SrcDbid, h.DstDbid = h.DstDbid, h.SrcDbid
	h.SrcPid, h.DstPid = h.DstPid, h.SrcPid
	h.Type = HelloAck
	return h
}

// PeerHelloAck returns the acceptor's answer to the dialler's PeerHello h: not
// swapped, but with the acceptor's pid as source. What the dialler put into
// the session, command and slice fields is echoed.
func (h Header) PeerHelloAck(pid int32) Header {
	h.Type = PeerHelloAck
	h.SrcPid = pid
	return h
}

package udpifc

import (
	"errors"
	"net/netip"
	"syscall"

	"github.com/trunkline-db/trunkline/icwire"
)

// read takes what comes to a socket until it is closed. A datagram longer than
// gp_max_packet_size arrives cut, and is ignored.
func (ic *Interconnect) read(s packetConn) {
	defer ic.wg.Done()
	buf := make([]byte, ic.cfg.MaxPacket)
	for {
		n, from, err := s.recv(buf)
		if err != nil {
			ic.mu.Lock()
			gone := ic.gone
			ic.mu.Unlock()
			if !gone {
				ic.failAll(receiveError(err))
			}
			return
		}
		ic.arrive(s, buf[:n], from)
	}
}

// arrive takes a datagram. What is none of ours is ignored.
func (ic *Interconnect) arrive(s packetConn, packet []byte, from netip.AddrPort) {
	h, body, err := icwire.DecodeUDP(packet)
	if err != nil || ic.crc() && !icwire.CheckUDP(packet) {
		ic.stats.ignored.Add(1)
		return
	}
	ic.stats.received.Add(1)
	ic.stats.receivedBytes.Add(int64(len(packet)))
	if h.Flags&icwire.UDPAbort != 0 && h.Flags&icwire.UDPAck != 0 {
		ic.confirmed(&h)
		return
	}
	if h.Flags&icwire.UDPToSender != 0 {
		ic.arriveBack(s, &h, body, from)
	} else {
		ic.arriveData(s, &h, body, from)
	}
}

// arriveBack takes a packet from a receiver.
func (ic *Interconnect) arriveBack(s packetConn, h *icwire.UDPHeader, body []byte, from netip.AddrPort) {
	ic.mu.Lock()
	o, ok := ic.senders[h.UDPKey]
	ic.mu.Unlock()
	if h.Flags&icwire.UDPAbort != 0 {
		if ok {
			o.s.receiverGone(o.i)
		}
		ic.answer(s, h, abortData|icwire.UDPAck, from)
		return
	}
	switch {
	case ok:
		o.s.arrive(o.i, h, body)
	case h.Flags&icwire.UDPStop != 0 && h.Flags&icwire.UDPAck != 0:
		// A receiver that waits for the end of a stream that was given up.
		ic.answer(s, h, abortData, from)
	}
}

// arriveData takes a packet from a sender.
func (ic *Interconnect) arriveData(s packetConn, h *icwire.UDPHeader, body []byte, from netip.AddrPort) {
	t := ic.tuning.Load()
	depth := t.QueueDepth
	if t.DropFuture {
		depth = 0
	}
	ic.mu.Lock()
	v := ic.receivers.route(h, body, from, depth)
	ic.mu.Unlock()
	if v.lost != nil {
		v.lost.r.senderGone(v.lost)
	}
	if h.Flags&icwire.UDPAbort != 0 {
		if v.conn != nil {
			v.conn.r.senderGone(v.conn)
		}
		ic.answer(s, h, abortReply|icwire.UDPAck, from)
		return
	}
	switch {
	case v.conn != nil:
		v.conn.r.arrive(v.conn, h, body, from)
	case v.reply != 0 && !ic.dropAck():
		ic.answer(s, h, v.reply|icwire.UDPToSender, from)
	}
}

// answer sends h back with other flags. To stop everything, the last consumed
// is the last of all.
func (ic *Interconnect) answer(s packetConn, h *icwire.UDPHeader, flags icwire.UDPFlags, to netip.AddrPort) {
	r := *h
	r.Flags = flags
	if flags&icwire.UDPStop != 0 {
		r.Extra = r.Seq
	}
	ic.say(s, &r, to)
}

// say sends a packet without a body. Whether it can be sent, time will tell.
func (ic *Interconnect) say(s packetConn, h *icwire.UDPHeader, to netip.AddrPort) {
	var b [icwire.UDPHeaderLen]byte
	h.Put(b[:], ic.crc())
	ic.send(s, b[:], to) //nolint:errcheck // as if it were lost
}

// send sends one datagram.
func (ic *Interconnect) send(s packetConn, b []byte, to netip.AddrPort) error {
	ic.stats.sent.Add(1)
	ic.stats.sentBytes.Add(int64(len(b)))
	var err error
	if t := ic.tuning.Load(); drop(t.FaultPercent) && t.Faults&allFaults != 0 {
		err = ic.faulty(s, b, to, t.Faults&allFaults)
	} else {
		err = s.send(b, to)
	}
	if err != nil && errors.Is(err, syscall.EPERM) {
		ic.refused(to, err)
		return nil
	}
	return err
}

// refused is called when a firewall's rule has kept a datagram back: it is as
// if it were lost, and worth a word now and then.
func (ic *Interconnect) refused(to netip.AddrPort, err error) {
	if ic.cfg.Refused == nil {
		return
	}
	now := int64(ic.now()) + 1
	if last := ic.saidRefused.Load(); (last == 0 || now-last >= int64(refusedQuiet)) && ic.saidRefused.CompareAndSwap(last, now) {
		ic.cfg.Refused(to, err)
	}
}

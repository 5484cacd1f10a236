package link

import "time"

// arm sets the alarm of a connection: in capacity mode for the oldest packet,
// and in both modes for the question whether there is credit again. A receiver
// that has been sent nothing and has said nothing is asked too: it may have
// failed, and does not know whom to tell.
func (s *Sender) arm(now time.Duration, c *outgoing) {
	switch {
	case s.p.Capacity && c.live > 0:
		c.probing = false
		pause := capacityPauses[min(c.backoff, len(capacityPauses)-1)]
		if c.timer.at == 0 || c.backoff == 0 {
			s.timers.set(&c.timer, now+pause)
		}
	case c.live == 0 && len(c.queue) > 0:
		if !c.probing {
			c.probing, c.since = true, now
		}
		s.timers.set(&c.timer, max(c.heard, c.probed)+probeAfter)
	case c.live == 0 && !c.met && !c.done:
		c.probing = false
		s.timers.set(&c.timer, max(c.heard, c.probed)+probeAfter)
	default:
		c.probing = false
		s.timers.clear(&c.timer)
	}
}

// Next is when Tick has something to do, if nothing comes before; false for
// never.
func (s *Sender) Next() (time.Duration, bool) {
	if len(s.timers) == 0 {
		return 0, false
	}
	due := s.timers[0].due
	if s.p.Capacity || due <= s.looked {
		return due, true
	}
	// A sender that waits looks at the clock now and then only.
	period := s.p.TimerCheckingPeriod
	return s.looked + (due-s.looked+period-1)/period*period, true
}

// Tick does what is due. A Timeout means that the motion has failed.
func (s *Sender) Tick(now time.Duration) *Timeout {
	s.looked = now
	lost := false
	for len(s.timers) > 0 && s.timers[0].due <= now {
		t := s.timers[0]
		c := &s.conns[t.conn]
		p := t.packet
		if p == nil && c.live > 0 {
			p = c.oldest()
			c.backoff++
			s.timers.set(t, now+capacityPauses[min(c.backoff, len(capacityPauses)-1)])
		}
		if p == nil {
			if silent := now - c.since; c.probing && silent > s.p.TransmitTimeout {
				return &Timeout{Conn: t.conn, After: silent}
			}
			c.probed = now
			s.out.Query(t.conn, c.sent)
			s.timers.set(t, now+probeAfter)
			continue
		}
		if p.Tries >= s.p.MinRetries && now-p.sent > s.p.TransmitTimeout {
			return &Timeout{Conn: t.conn, Seq: p.Seq, Retries: p.Tries, After: now - p.sent}
		}
		s.resend(now, t.conn, p)
		lost = true
	}
	if lost && !s.p.Capacity {
		s.ssthresh = max(s.cwnd/2, s.minCwnd())
		s.cwnd = s.minCwnd()
	}
	return nil
}

// Silent says whether there is a receiver that has owed an answer, to a packet
// or a query, and said nothing for d. Tick gives it up in the end, unless it
// answers yet.
func (s *Sender) Silent(now, d time.Duration) bool {
	for i := range s.conns {
		c := &s.conns[i]
		switch {
		case c.done:
		case c.live > 0 && now-max(c.heard, c.oldest().sent) >= d, c.probing && now-c.since >= d:
			return true
		}
	}
	return false
}

// oldest is the first packet that is not acknowledged; there must be one.
func (c *outgoing) oldest() *Packet {
	i := 0
	for c.unacked[i].settled {
		i++
	}
	return c.unacked[i]
}

func (s *Sender) resend(now time.Duration, conn int, p *Packet) {
	p.Tries++
	if p.Tries == s.p.MinRetries && !s.warned {
		s.warned = true
		s.out.Warn(conn, p)
	}
	if !s.p.Capacity {
		s.timers.set(&p.timer, s.expiry(now, &s.conns[conn], p))
	}
	s.out.Send(conn, p)
}

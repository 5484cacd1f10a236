package execute

import "fmt"

// pump reads PostgreSQL until its connection ends: it relays to the client
// while no slice command is under way.
func (q *session) pump() error {
	for {
		if len(q.in.buffered()) == 0 {
			if err := q.in.fill(); err != nil {
				return err
			}
		}
		// Whatever answers a slice command was read after the feeder had set
		// job, and only asynchronous messages can lie before it.
		if j := q.job.Load(); j != nil {
			if err := j.serve(); err != nil {
				return err
			}
			continue
		}
		if err := q.relay(); err != nil {
			return err
		}
	}
}

// relay passes the buffered whole messages on to the client in one write, or
// all of one message that is longer than the buffer.
func (q *session) relay() error {
	b := q.in.buffered()
	n, rest := 0, 0
	for n < len(b) {
		size, err := messageLen(b[n:])
		if err != nil {
			return fmt.Errorf("from PostgreSQL: %w", err)
		}
		if size == 0 || n+size > len(b) {
			rest = size
			break
		}
		if b[n] == 'Z' && size == 6 {
			q.ready(b[n+5])
		}
		n += size
	}
	if n > 0 {
		err := q.reply(b[:n])
		q.in.skip(n)
		return err
	}
	if rest <= readBuffer {
		return q.in.fill()
	}
	for rest > 0 {
		b := q.in.buffered()
		if len(b) == 0 {
			if err := q.in.fill(); err != nil {
				return err
			}
			continue
		}
		b = b[:min(rest, len(b))]
		if err := q.reply(b); err != nil {
			return err
		}
		q.in.skip(len(b))
		rest -= len(b)
	}
	return nil
}

// ready notes a ReadyForQuery of PostgreSQL.
func (q *session) ready(status byte) {
	q.txStatus.Store(uint32(status))
	q.busy.Store(false)
}

package logical

import (
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// FuzzTable: a peer that sends anything in any order, and backends that come
// and go, never break the bookkeeping: limits hold, each connection says BYE
// at most once, and the loss of the peer leaves nothing behind.
func FuzzTable(f *testing.F) {
	f.Add([]byte("hdhbheg"))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 40, 41, 42, 43, 80, 81, 120, 200, 255})
	f.Fuzz(func(t *testing.T, ops []byte) {
		tab := NewTable()
		tab.Payload, tab.Budget = 1, NewBudget(1<<20, 1<<16)
		tab.Credit = len(ops)%2 == 1
		tab.Limits = Limits{EarlyTimeout: 5 * time.Second, EarlyBytes: 400, EarlyConns: 3, Linger: 20 * time.Second, Pending: 200, Chain: 3}
		now := time.Unix(0, 0)
		byes := map[*Conn]int{}
		var do func(c *Conn, e Effect)
		do = func(c *Conn, e Effect) {
			if e.Bye {
				if byes[c]++; byes[c] > 1 {
					t.Fatal("BYE twice")
				}
			}
			if e.Ended {
				if next, e := tab.Remove(c); next != nil {
					do(next, e)
				}
			}
		}
		all := func(dos []Do) {
			for _, d := range dos {
				do(d.Conn, d.Effect)
			}
		}
		for _, op := range ops {
			k := icwire.Key{
				Command: uint32(op >> 4 & 3),
				Local:   icwire.End{Dbid: 1, Pid: int32(op >> 6 & 1)}, Remote: icwire.End{Dbid: 2, Pid: 9},
			}
			tab.CountInside = op>>7 == 1
			head := tab.slots[k.ID()]
			backend := head != nil && head.backend
			switch op & 15 {
			case 1:
				if backend && head.served {
					do(head, tab.Deaf(head))
				}
			case 0:
				c, e, others, refused := tab.Hello(k, now)
				if (c == nil) != (refused != "") {
					t.Fatal("neither refused nor taken")
				}
				if c != nil {
					do(c, e)
				}
				all(others)
			case 2, 3, 4:
				if c, _, _, e := tab.Data(k, ops[:min(len(ops), 50)], op&1 == 0, now); c != nil {
					do(c, e)
				}
			case 6:
				if c, e := tab.Perished(k); c != nil {
					do(c, e)
				}
			case 5:
				if c, e := tab.Bye(k, now); c != nil {
					do(c, e)
				}
			case 7:
				if c, e := tab.Ack(k, uint64(op)<<8, op>>7 == 1); c != nil {
					do(c, e)
				}
			case 8:
				if backend && head.Room() > 0 {
					head.Sent(head.Room(), head.Room())
				}
			case 9, 10:
				if backend && head.pending > 0 {
					do(head, tab.Taken(head, head.pending, head.units, now))
				}
			case 11:
				if backend && head.served {
					do(head, tab.EOF(head))
				}
			case 12:
				if backend {
					do(head, tab.Gone(head))
				}
			case 13:
				now = now.Add(3 * time.Second)
				all(tab.Expire(now))
			case 14:
				if backend && !head.byeGot {
					do(head, tab.Drop(head))
				}
			case 15:
				all(tab.Lost())
				tab.Reconnected()
			}
			if n, bytes := tab.Early(); n > tab.Limits.EarlyConns || bytes > tab.mostEarly() {
				t.Fatalf("%d early connections with %d bytes", n, bytes)
			}
			tab.All(func(c *Conn) {
				if c.ended || c.unacked < 0 || c.unacked > tab.Window.Pause || c.pending < 0 || c.pending > tab.most() || c.units < 0 || tab.Budget.begun.Load() < 0 {
					t.Fatalf("%+v", c)
				}
			})
		}
		all(tab.Lost())
		var rest []*Conn
		tab.All(func(c *Conn) { rest = append(rest, c) })
		for _, c := range rest {
			do(c, tab.Gone(c))
		}
		if n, b := tab.Early(); tab.Len() != 0 || n != 0 || b != 0 || len(tab.pairs) != 0 || len(tab.lingering) != 0 || tab.Backends() != 0 {
			t.Fatalf("left: %d connections, %d early, %d pairs, %d lingering", tab.Len(), n, len(tab.pairs), len(tab.lingering))
		}
		if n := tab.Budget.Granted(); n != 0 {
			t.Fatalf("%d bytes of the budget are gone", n)
		}
	})
}

package link

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/trunkline-db/trunkline/icwire"
)

// script runs one Sender and one Receiver by hand; each command prints what
// they do.
type script struct {
	now time.Duration
	s   *Sender
	r   *Receiver
	out strings.Builder
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *script) Send(conn int, p *Packet) {
	s.printf("send %d#%d%s%s", conn, p.Seq, when(p.EOS, " eos"), when(p.Tries > 0, fmt.Sprintf(" again (%d)", p.Tries)))
}
func (s *script) Query(conn int, last uint32) { s.printf("query %d#%d", conn, last) }
func (s *script) Release(conn int, p *Packet) { s.printf("release %d#%d", conn, p.Seq) }
func (s *script) Warn(conn int, p *Packet)    { s.printf("warn %d#%d after %d", conn, p.Seq, p.Tries) }
func (s *script) keep(b []byte) []byte        { return b }
func (s *script) drop(b []byte)               { s.printf("drop %s", b) }
func when(is bool, text string) string        { return map[bool]string{true: text}[is] }
func ms(n int) time.Duration                  { return time.Duration(n) * time.Millisecond }
func flags(d *datadriven.TestData) (out icwire.UDPFlags) {
	for f, name := range map[icwire.UDPFlags]string{
		icwire.UDPAck: "ack", icwire.UDPStop: "stop", icwire.UDPEOS: "eos", icwire.UDPNak: "nak",
		icwire.UDPDisorder: "disorder", icwire.UDPDuplicate: "duplicate", icwire.UDPCapacity: "capacity",
	} {
		if d.HasArg(name) {
			out |= f
		}
	}
	return out
}

func (s *script) reply(r Reply) {
	if r.Flags != 0 {
		s.printf("%v seq=%d extra=%d%s", r.Flags, r.Seq, r.Extra, when(r.Missing != nil, fmt.Sprintf(" missing=%v", r.Missing)))
	}
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			conn, n, depth, snd, at, seq, extra, retries := 0, 1, 4, 2, 0, 0, 0, 100
			d.MaybeScanArgs(t, "conn", &conn)
			d.MaybeScanArgs(t, "n", &n)
			d.MaybeScanArgs(t, "depth", &depth)
			d.MaybeScanArgs(t, "snd", &snd)
			d.MaybeScanArgs(t, "seq", &seq)
			d.MaybeScanArgs(t, "extra", &extra)
			d.MaybeScanArgs(t, "retries", &retries)
			if d.HasArg("at") {
				d.ScanArgs(t, "at", &at)
				s.now = ms(at)
			}
			h := icwire.UDPHeader{Flags: flags(d), Seq: uint32(seq), Extra: uint32(extra)}
			switch d.Cmd {
			case "sender":
				s.s = NewSender(s.now, Params{Capacity: d.HasArg("capacity"), QueueDepth: depth, SndQueueDepth: snd, MinRetries: retries, TransmitTimeout: 2 * time.Second}, n, s)
			case "queue": // n packets, as far as there are buffers
				for i := range n {
					if !s.s.Take(conn) {
						s.printf("no buffer after %d", i)
						break
					}
					s.s.Queue(s.now, conn, &Packet{EOS: h.Flags&icwire.UDPEOS != 0})
				}
			case "end":
				s.s.End(s.now, conn)
			case "hear":
				var missing []uint32
				for _, a := range d.CmdArgs {
					if a.Key == "missing" {
						for _, v := range a.Vals {
							k, err := strconv.Atoi(v)
							if err != nil {
								t.Fatal(err)
							}
							missing = append(missing, uint32(k))
						}
					}
				}
				s.s.Arrive(s.now, conn, &h, icwire.AppendMissing(nil, missing))
			case "until": // lets time pass
				end := ms(at)
				s.now = 0
				for {
					next, ok := s.s.Next()
					if !ok || next > end {
						break
					}
					s.printf("-- %v", next)
					if to := s.s.Tick(next); to != nil {
						s.printf("given up: %+v", *to)
						break
					}
				}
				s.now = end
			case "state":
				c := &s.s.conns[conn]
				s.printf("credit %d, buffers %d, unacknowledged %d, queued %d, cwnd %.4g, ssthresh %.4g, rtt %v, dev %v%s%s",
					c.credit, c.taken, c.live, len(c.queue), s.s.cwnd, s.s.ssthresh, c.srtt, c.dev, when(c.stopped, ", stopped"), when(c.done, ", done"))
			case "receiver":
				s.r = NewReceiver(depth)
			case "data":
				var body []byte
				if !d.HasArg("empty") {
					body = fmt.Appendf(nil, "body%d", seq)
				}
				reply, ready := s.r.Arrive(&h, body, s.keep)
				s.reply(reply)
				if ready {
					s.printf("ready")
				}
			case "next":
				if b := s.r.Next(); b != nil {
					s.printf("%s", b)
				} else {
					s.printf("none%s", when(s.r.Ended(), ", ended"))
				}
			case "consumed":
				s.reply(s.r.Consumed())
			case "consume": // n packets
				for range n {
					if s.r.Next() == nil {
						s.printf("none")
					}
					s.reply(s.r.Consumed())
				}
			case "stop":
				s.reply(s.r.Stop(s.now, s.drop))
			case "tick":
				next, ok := s.r.NextStop()
				s.reply(s.r.Tick(s.now))
				s.printf("next %v %v", next, ok)
			default:
				t.Fatalf("unknown command %s", d.Cmd)
			}
			return s.out.String()
		})
	})
}

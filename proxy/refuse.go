package proxy

import (
	"fmt"
	"os"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/proxy/trunk"
)

// A Trunkline acceptor tells a Trunkline dialler why it is not wanted: by a
// PEER_HELLO_ACK with refuseWord in the session field, the reason in the
// command field, and its own content and dbid as the destination. A Greenplum
// dialler gets no answer: an acknowledgement it does not expect would end its
// process.
//
// For that, and so that two clusters on the same hosts are told apart, a
// Trunkline dialler puts the port on which it listens itself into the send
// slice of PEER_HELLO, which Greenplum does not look at.
const refuseWord int32 = 0x4b414e54 // "TNAK"

type refuseCode uint32

const (
	refuseNothing  refuseCode = iota
	refuseDest                // it wanted another instance
	refuseUnlisted            // it is not in the acceptor's list
	refuseContent             // the acceptor's list has another content for it
	refuseRole                // it should wait to be dialled
	refuseAddress             // the acceptor's list has another address for it
	refusePort                // the acceptor's list has another port for it
	refuseDialect             // it speaks another dialect
)

// refuse makes the answer to a dialler, nil if it gets none.
func (p *Proxy) refuse(hello icwire.Header, d icwire.Dialect, code refuseCode) []byte {
	ack, a := trunk.Accept(hello, hello.PeerHelloAck(int32(os.Getpid())))
	if !a.Trunkline || code == refuseNothing {
		return nil
	}
	ack.Session, ack.Command = refuseWord, uint32(code)
	ack.DstContent, ack.DstDbid = p.content, p.dbid
	return ack.Append(nil, d)
}

// checkAck is what a dialler makes of the answer to its hello.
func (pr *peer) checkAck(b []byte, d icwire.Dialect) (trunk.Agreement, error) {
	p := pr.p
	ack, err := icwire.Decode(b, d)
	there := instanceName(ack.DstContent, ack.DstDbid)
	switch {
	case err != nil:
		return trunk.Agreement{}, fmt.Errorf("what answers there is no proxy of this cluster: %w", err)
	case ack.Type != icwire.PeerHelloAck || int(ack.Len) != len(b):
		return trunk.Agreement{}, fmt.Errorf("what answers there is no proxy of this cluster: it sent %v", ack)
	case ack.DstDbid != pr.entry.Dbid || ack.DstContent != pr.entry.Content:
		return trunk.Agreement{}, fmt.Errorf("the proxy there is that of %s", there)
	case ack.SrcDbid != p.dbid:
		return trunk.Agreement{}, fmt.Errorf("the proxy there answers dbid %d, not us", ack.SrcDbid)
	case ack.Session == refuseWord:
		return trunk.Agreement{}, fmt.Errorf("the proxy there refuses us: %s", p.refusedBecause(refuseCode(ack.Command)))
	}
	return trunk.Agreed(ack), nil
}

// refusedBecause is a code in words, as the refused one sees it.
func (p *Proxy) refusedBecause(code refuseCode) string {
	switch code {
	case refuseUnlisted:
		return fmt.Sprintf("%s is not in its address list", p.label)
	case refuseContent:
		return fmt.Sprintf("its address list has another content id for dbid %d", p.dbid)
	case refuseRole:
		return "by the content ids of its address list it is not we who dial"
	case refuseAddress:
		return fmt.Sprintf("its address list has another host for %s than the one we dial from (%s there)", p.label, guc.ProxyCheckSource)
	case refusePort:
		return fmt.Sprintf("its address list has another port for %s than %d: it is of another cluster, or the lists differ (%s there)",
			p.label, p.ownPort(), guc.ProxyCheckSource)
	case refuseDialect:
		return "its cluster speaks another header dialect"
	}
	return fmt.Sprintf("reason %d", code)
}

// ownPort is the port of the own entry, 0 if there is none.
func (p *Proxy) ownPort() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	own, _ := p.facts.Addresses.Lookup(p.dbid)
	return own.Port
}

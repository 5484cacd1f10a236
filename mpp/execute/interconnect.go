package execute

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/proxied"
	"github.com/trunkline-db/trunkline/motion/tcp"
	"github.com/trunkline-db/trunkline/proxy"
)

// Interconnects makes the built-in interconnects of one instance, for QEs and
// for the QD alike.
type Interconnects struct {
	// Dir is the instance's data directory.
	Dir datadir.Dir
	// Address is the host on which type tcp listens. When empty it is the
	// parameter gp_interconnect_address, which the dispatcher sends, or else
	// 127.0.0.1.
	Address string
	// Cause says why the instance of that dbid cannot be reached through the
	// proxy; see proxied.Config. Nil asks the status of the instance's proxy.
	Cause func(ctx context.Context, dbid uint16) string
}

// New makes one executor's interconnect of the type. params may hold the
// session's values of gp_interconnect_… parameters and gp_max_packet_size;
// absent ones have their defaults. Errors are *motion.Error.
func (i Interconnects) New(typ string, params map[string]string) (motion.Interconnect, error) {
	var ic motion.Interconnect
	var err error
	switch typ {
	case "tcp", "proxy":
	default:
		return nil, &motion.Error{
			Code:    "0A000",
			Message: fmt.Sprintf("interconnect type %q is not available in this build", typ),
			Hint:    `Connect with gp_interconnect_type set to "tcp" or "proxy".`,
		}
	}
	p := parameters{values: params}
	setup := time.Duration(p.number(guc.SetupTimeout)) * time.Second
	if setup == 0 {
		setup = -1 // no limit
	}
	transmit := time.Duration(p.number(guc.TransmitTimeout)) * time.Second
	packet := p.number(guc.MaxPacketSize)
	backlog := p.number(guc.TCPListenerBacklog)
	if p.err != nil {
		return nil, p.err
	}
	if typ == "proxy" {
		ic, err = proxied.New(proxied.Config{Dir: i.Dir, Cause: i.cause(), SetupTimeout: setup, TransmitTimeout: transmit, MaxPacket: packet})
	} else {
		host := i.Address
		if host == "" {
			host = params["gp_interconnect_address"]
		}
		ic, err = tcp.New(tcp.Config{ListenHost: host, SetupTimeout: setup, TransmitTimeout: transmit, MaxPacket: packet, Backlog: backlog})
	}
	if err != nil {
		return nil, motion.Errorf("interconnect type %s cannot be set up: %w", typ, err)
	}
	return ic, nil
}

// cause is i.Cause or its default.
func (i Interconnects) cause() func(context.Context, uint16) string {
	if i.Cause != nil {
		return i.Cause
	}
	return func(ctx context.Context, dbid uint16) string {
		s, err := proxy.ReadStatus(ctx, i.Dir.ProxySocket())
		if errors.Is(err, proxy.ErrStopped) {
			return err.Error()
		}
		if err != nil {
			return ""
		}
		return s.Cause(dbid)
	}
}

// parameters reads numbers of Greenplum's parameters, keeping the first error.
type parameters struct {
	values map[string]string
	err    error
}

func (p *parameters) number(name string) int {
	g, ok := guc.Lookup(name)
	if !ok {
		p.fail(fmt.Sprintf("unrecognized configuration parameter %q", name))
		return 0
	}
	v, ok := p.values[name]
	if !ok {
		v = g.Default
	}
	c, err := g.Parse(v)
	if err != nil {
		p.fail(err.Error())
		return 0
	}
	return g.Int(c)
}

func (p *parameters) fail(message string) {
	if p.err == nil {
		p.err = &motion.Error{Code: "22023", Message: message}
	}
}

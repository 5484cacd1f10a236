package tcp

import (
	"fmt"
	"time"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/internal/stream"
)

// Tuning is the parameters that a session may change at any time; see Config.
type Tuning struct {
	SetupTimeout    time.Duration
	TransmitTimeout time.Duration
	Backlog         int
	SlowRetry       bool
}

func (t *Tuning) check() error {
	switch {
	case t.Backlog == 0:
		t.Backlog = defaultBacklog
	case t.Backlog < 0:
		t.Backlog = 0
	}
	if t.Backlog > 65535 {
		return fmt.Errorf("motion/tcp: backlog %d is not between 0 and 65535", t.Backlog)
	}
	if t.SetupTimeout == 0 {
		t.SetupTimeout = stream.DefaultSetupTimeout
	}
	return stream.Options{TransmitTimeout: t.TransmitTimeout}.Check()
}

// Tune sets parameters for the motions opened from now on. A listener that is
// open gets the new backlog at once.
func (ic *Interconnect) Tune(t Tuning) error {
	if err := t.check(); err != nil {
		return err
	}
	ic.mu.Lock()
	defer ic.mu.Unlock()
	old := ic.tuning.Swap(&t)
	ic.registry.setTimeout(t.SetupTimeout)
	if ic.ln == nil || old.Backlog == t.Backlog {
		return nil
	}
	return setBacklog(ic.ln, t.Backlog)
}

// options are those of a motion opened now.
func (ic *Interconnect) options() stream.Options {
	opt := ic.opt
	opt.TransmitTimeout = ic.tuning.Load().TransmitTimeout
	return opt
}

// warnBacklog tells of a motion whose senders may find the listener full.
func (ic *Interconnect) warnBacklog(senders int) {
	if ic.cfg.Warn == nil || senders <= ic.tuning.Load().Backlog {
		return
	}
	ic.cfg.Warn(&motion.Error{
		Code:    "01000",
		Message: fmt.Sprintf("SetupTCPInterconnect: too many expected incoming connections(%d), Interconnect setup might possibly fail", senders),
		Hint:    "Try enlarging the gp_interconnect_tcp_listener_backlog GUC value and OS net.core.somaxconn parameter",
	})
}

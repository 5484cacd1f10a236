package execute

import (
	"context"
	"testing"

	"github.com/trunkline-db/trunkline/motion"
)

// TestFirstCause: when an executor sends to itself, each end of that motion
// fails with the other; what is told in the end is why the first did.
func TestFirstCause(t *testing.T) {
	broken := &motion.Error{Code: motion.CodeInterconnect, Message: "interconnect error: connection closed prematurely", Detail: "from itself"}
	timeout := &motion.Error{Code: motion.CodeInterconnect, Message: "Interconnect timeout"}
	later := &motion.Error{Code: motion.CodeInterconnect, Message: "the network is down"}
	st := &statement{q: &session{}}
	st.ctx, st.cancel = context.WithCancelCause(t.Context())
	for _, tc := range []struct{ err, want error }{{broken, broken}, {timeout, timeout}, {broken, timeout}, {later, timeout}} {
		st.fail(tc.err)
		if got := st.failed(); got != tc.want {
			t.Errorf("after %v it is %v", tc.err, got)
		}
	}
	if context.Cause(st.ctx) == nil {
		t.Error("the statement goes on")
	}

	// The dispatcher, who has heard of the consequence elsewhere, cancels; the
	// executor's answer is still why its motion failed.
	j := &job{q: st.q}
	j.ctx, j.cancel = context.WithCancelCause(t.Context())
	st.q.stmt.Store(st)
	st.q.job.Store(j)
	st.q.cancelJob(errCanceled)
	if got := j.cause(errCanceled); got != timeout {
		t.Errorf("cancelled after its motion has failed, the executor says %v", got)
	}

	// What follows from a cancellation is no failure.
	st = &statement{q: &session{}}
	st.ctx, st.cancel = context.WithCancelCause(t.Context())
	st.cancel(errCanceled)
	st.fail(broken)
	if err := st.failed(); err != nil {
		t.Errorf("cancelled, it failed with %v", err)
	}
}

package batch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/client"
)

// step is what a daemon does with one request for the push.
type step struct {
	state push.State // of the receipt
	err   error
}

func (s step) answer() (client.Answer, error) {
	if s.err != nil {
		return client.Answer{}, s.err
	}
	return is(s.state), nil
}

// script answers the n-th request with the n-th step, and those after it with
// the last.
func script(steps []step, nth int) (client.Answer, error) {
	return steps[min(nth, len(steps))-1].answer()
}

// TestOnePush has one row for each way of a push.
func TestOnePush(t *testing.T) {
	odd := errors.New("this is no daemon")
	tests := []struct {
		name    string
		cfg     Config
		submit  []step
		get     []step
		tally   Tally
		err     error     // of the batch
		code    push.Code // of the push
		seconds float64   // what it takes, rounded down
	}{
		{name: "done", submit: []step{{state: push.Done}}, tally: Tally{Done: 1}},
		{name: "refused", submit: []step{{err: problem(push.FileNotFound, "", 0)}}, tally: Tally{Failed: 1}, code: push.FileNotFound},
		{name: "failed", submit: []step{{err: problem(push.StoreRefused, "7", 0)}}, tally: Tally{Failed: 1}, code: push.StoreRefused},
		{name: "accepted", cfg: Config{Async: true}, submit: []step{{state: push.Queued}}, tally: Tally{Done: 1}},
		{name: "accepted and failed", cfg: Config{Async: true}, submit: []step{{state: push.Failed}}, tally: Tally{Failed: 1}, code: push.Internal},

		{name: "the queue is full", submit: []step{{err: refusal(push.QueueFull, "", 3*time.Second)}, {state: push.Done}}, tally: Tally{Done: 1}, seconds: 3},
		{name: "the disk is full, accepted later", cfg: Config{Async: true}, tally: Tally{Done: 1}, seconds: 10,
			submit: []step{{err: refusal(push.JournalUnavailable, "", 5*time.Second)}, {err: refusal(push.JournalUnavailable, "", 5*time.Second)}, {state: push.Queued}}},
		{name: "restarted", submit: []step{{err: gone}, {err: gone}, {state: push.Done}}, tally: Tally{Done: 1}},
		{name: "cut off, and given back at its end", submit: []step{{err: lost}, {err: gone}, {state: push.Done}}, tally: Tally{Done: 1}},
		{name: "cut off, and given back on its way", submit: []step{{err: lost}, {state: push.Running}}, get: []step{{state: push.Done}}, tally: Tally{Done: 1}},
		{name: "cut off, and given back failed", submit: []step{{err: lost}, {err: problem(push.FileChanged, "7", 0)}}, tally: Tally{Failed: 1}, code: push.FileChanged},
		{name: "stays in the journal through a restart", submit: []step{{err: refusal(push.ShuttingDown, "7", 5*time.Second)}, {state: push.Done}}, tally: Tally{Done: 1}, seconds: 5},

		{name: "watched", cfg: Config{Watch: time.Second}, submit: []step{{state: push.Queued}}, get: []step{{state: push.Running}, {state: push.Done}}, tally: Tally{Done: 1}},
		{name: "watched until it failed", cfg: Config{Watch: time.Second}, submit: []step{{state: push.Queued}}, get: []step{{state: push.Failed}}, tally: Tally{Failed: 1}, code: push.Internal},
		{name: "watched until it was cancelled", cfg: Config{Watch: time.Second}, submit: []step{{state: push.Queued}}, get: []step{{state: push.Cancelled}}, tally: Tally{Failed: 1}, code: push.WasCancelled},
		{name: "watched through a restart", cfg: Config{Watch: time.Second}, submit: []step{{state: push.Queued}}, get: []step{{err: lost}, {err: gone}, {state: push.Done}}, tally: Tally{Done: 1}},
		{name: "forgotten meanwhile", cfg: Config{Watch: time.Second}, submit: []step{{state: push.Queued}}, get: []step{{err: problem(push.PushNotFound, "", 0)}}, tally: Tally{Failed: 1}, code: push.PushNotFound},

		{name: "no daemon", submit: []step{{err: gone}}, tally: Tally{Untouched: 1}, err: gone, seconds: 60},
		{name: "full for good", submit: []step{{err: refusal(push.QueueFull, "", 7*time.Second)}}, tally: Tally{Untouched: 1}, err: client.ErrNotTaken, seconds: 60},
		{name: "cut off for good", submit: []step{{err: lost}, {err: gone}}, tally: Tally{Unclear: 1}, err: gone, seconds: 60},
		{name: "in the journal, and the daemon stays away", submit: []step{{err: refusal(push.ShuttingDown, "7", 0)}, {err: gone}}, tally: Tally{Accepted: 1}, err: gone, seconds: 60},
		{name: "watched, and the daemon stays away", cfg: Config{Watch: time.Second}, submit: []step{{state: push.Queued}}, get: []step{{err: gone}}, tally: Tally{Accepted: 1}, err: gone, seconds: 60},
		{name: "something else", submit: []step{{err: odd}}, tally: Tally{Unclear: 1}, err: odd},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &fake{
					submit: func(_ context.Context, _ client.Submission, nth int) (client.Answer, error) {
						return script(test.submit, nth)
					},
					get: func(_ context.Context, id string, _ time.Duration, nth int) (client.Answer, error) {
						if id != "7" {
							t.Errorf("asked for %q", id)
						}
						return script(test.get, nth)
					},
				}
				o := new(observed)
				cfg := test.cfg
				cfg.Daemon, cfg.Observer, cfg.Parallel, cfg.Label = d, o, 3, "L"
				cfg.Patience = aMinute
				begun := time.Now()
				tally, err := cfg.Run(t.Context(), items(1))
				if took := time.Since(begun).Seconds(); took < test.seconds || took >= test.seconds+1 {
					t.Errorf("took %v s", took)
				}
				if tally != test.tally || !errors.Is(err, test.err) {
					t.Errorf("%+v, %v", tally, err)
				}
				if keys := d.keys(); len(keys) != 1 || len(keys[0]) < 20 || d.submissions[0].Label != "L" {
					t.Errorf("keys %q of %+v", keys, d.submissions)
				}
				if (len(o.outcomes) == 1) != (err == nil) {
					t.Fatalf("outcomes %+v with %v", o.outcomes, err)
				}
				if err == nil {
					if e, is := errors.AsType[*push.Error](o.outcomes[0].Err); is != (test.code != "") || is && e.Code != test.code || len(o.outcomes[0].JSON) == 0 {
						t.Errorf("outcome %+v", o.outcomes[0])
					}
				}
			})
		})
	}
}

// TestMany: no more than so many at once, each once, with a key of its own, and
// one that fails is no hindrance.
func TestMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most int
		d := &fake{}
		d.submit = func(_ context.Context, s client.Submission, _ int) (client.Answer, error) {
			d.mu.Lock()
			now++
			most = max(most, now)
			d.mu.Unlock()
			<-time.After(time.Second)
			d.mu.Lock()
			now--
			d.mu.Unlock()
			if s.File == "/3" {
				return client.Answer{}, problem(push.FileNotFound, "", 0)
			}
			return is(push.Done), nil
		}
		o := new(observed)
		begun := time.Now()
		tally, err := Config{Daemon: d, Observer: o, Parallel: 4, Patience: aMinute}.Run(t.Context(), items(20))
		if err != nil || tally != (Tally{Done: 19, Failed: 1}) || most != 4 || time.Since(begun) != 5*time.Second {
			t.Errorf("%+v, %v, %d at once, %v", tally, err, most, time.Since(begun))
		}
		if len(d.submissions) != 20 || len(d.keys()) != 20 || len(o.outcomes) != 20 {
			t.Errorf("%d submissions with %d keys, %d outcomes", len(d.submissions), len(d.keys()), len(o.outcomes))
		}
	})
}

// TestSharedPatience: a queue that is full for hours is no reason to stop while
// there are signs of life; and all stop together once there are none.
func TestSharedPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		d := &fake{
			submit: func(_ context.Context, s client.Submission, _ int) (client.Answer, error) {
				if s.File == "/0" || time.Since(begun) >= time.Hour {
					return is(push.Queued), nil
				}
				return client.Answer{}, refusal(push.QueueFull, "", 10*time.Second)
			},
			get: func(_ context.Context, _ string, wait time.Duration, _ int) (client.Answer, error) {
				<-time.After(wait)
				if time.Since(begun) >= time.Hour {
					return is(push.Done), nil
				}
				return is(push.Running), nil
			},
		}
		tally, err := Config{Daemon: d, Observer: new(observed), Parallel: 2, Patience: aMinute, Watch: time.Second}.Run(t.Context(), items(3))
		if err != nil || tally != (Tally{Done: 3}) {
			t.Errorf("%+v, %v", tally, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var notices []error
		begun := time.Now()
		d := &fake{submit: func(_ context.Context, s client.Submission, _ int) (client.Answer, error) {
			return client.Answer{}, gone
		}}
		cfg := Config{Daemon: d, Observer: new(observed), Parallel: 10,
			Patience: Patience{For: time.Minute, Notice: func(err error, lasts time.Duration) {
				if lasts != time.Minute || time.Since(begun) != noticeTime {
					t.Errorf("a notice of %v after %v", lasts, time.Since(begun))
				}
				notices = append(notices, err)
			}}}
		tally, err := cfg.Run(t.Context(), items(1000))
		gaveUp, is := errors.AsType[*GaveUpError](err)
		if tally != (Tally{Untouched: 1000}) || !is || gaveUp.Err != error(gone) || time.Since(begun) != time.Minute {
			t.Errorf("%+v, %v after %v", tally, err, time.Since(begun))
		}
		if len(notices) != 1 || notices[0] != error(gone) {
			t.Errorf("notices %v", notices)
		}
	})
}

// TestNoPatience: without any the daemon is asked once, and so it is said.
func TestNoPatience(t *testing.T) {
	for _, refusal := range []error{gone, lost, refusal(push.ShuttingDown, "", time.Second)} {
		asked := 0
		d := &fake{submit: func(context.Context, client.Submission, int) (client.Answer, error) {
			asked++
			return client.Answer{}, refusal
		}}
		tally, err := Config{Daemon: d, Observer: new(observed), Parallel: 1}.Run(t.Context(), items(2))
		if tally.Done+tally.Failed+tally.Accepted != 0 || err == nil || err.Error() != refusal.Error() || asked != 1 {
			t.Errorf("%+v, %v after %d requests", tally, err, asked)
		}
	}
}

// TestGivingUpLeavesTheOthers: a push that the daemon holds is waited for, also
// when another one was refused for too long. New ones are not begun.
func TestGivingUpLeavesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fake{submit: func(_ context.Context, s client.Submission, _ int) (client.Answer, error) {
			if s.File == "/0" {
				<-time.After(time.Hour)
				return is(push.Done), nil
			}
			return client.Answer{}, refusal(push.QueueFull, "", 0)
		}}
		tally, err := Config{Daemon: d, Observer: new(observed), Parallel: 2, Patience: aMinute}.Run(t.Context(), items(9))
		if _, is := errors.AsType[*GaveUpError](err); tally != (Tally{Done: 1, Untouched: 8}) || !is {
			t.Errorf("%+v, %v", tally, err)
		}
	})
}

// TestInterrupted counts what is where as the context ends.
func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("because")
		ctx, cancel := context.WithCancelCause(t.Context())
		d := &fake{
			submit: func(ctx context.Context, s client.Submission, _ int) (client.Answer, error) {
				switch s.File {
				case "/0":
					return is(push.Done), nil
				case "/1":
					return is(push.Running), nil
				case "/2":
					return client.Answer{}, refusal(push.QueueFull, "", 30*time.Second)
				}
				<-ctx.Done()
				return client.Answer{}, context.Cause(ctx)
			},
			get: func(ctx context.Context, _ string, _ time.Duration, _ int) (client.Answer, error) {
				<-ctx.Done()
				return client.Answer{}, context.Cause(ctx)
			},
		}
		time.AfterFunc(10*time.Second, func() { cancel(why) })
		begun := time.Now()
		tally, err := Config{Daemon: d, Observer: new(observed), Parallel: 4, Patience: aMinute}.Run(ctx, items(10))
		if want := (Tally{Done: 1, Accepted: 1, Unclear: 2, Untouched: 6}); tally != want || !errors.Is(err, why) {
			t.Errorf("%+v, %v; want %+v", tally, err, want)
		}
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("ended after %v", took)
		}
		// And with one that has ended before.
		tally, err = Config{Daemon: d, Observer: new(observed), Parallel: 4, Patience: aMinute}.Run(ctx, items(10))
		if tally != (Tally{Untouched: 10}) || !errors.Is(err, why) {
			t.Errorf("%+v, %v", tally, err)
		}
	})
}

// TestPace: a daemon that does not hold its answers is not asked all the time.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		d := &fake{
			submit: func(context.Context, client.Submission, int) (client.Answer, error) { return is(push.Queued), nil },
			get: func(context.Context, string, time.Duration, int) (client.Answer, error) {
				if time.Since(begun) >= time.Minute {
					return is(push.Done), nil
				}
				return is(push.Running), nil
			},
		}
		o := new(observed)
		tally, err := Config{Daemon: d, Observer: o, Parallel: 1, Patience: aMinute}.Run(t.Context(), items(1))
		if want := int(time.Minute/pace) + 1; err != nil || tally.Done != 1 || d.gets != want || o.news != want {
			t.Errorf("%+v, %v: asked %d times, want %d, told %d", tally, err, d.gets, want, o.news)
		}
	})
}

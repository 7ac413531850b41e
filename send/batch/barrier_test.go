package batch

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/client"
)

// TestSettle plays a daemon whose pushes end, and which goes away, at given
// times.
func TestSettle(t *testing.T) {
	tests := []struct {
		name    string
		pending func(seconds float64) (int, error)
		timeout time.Duration
		says    string        // the error
		ended   time.Duration // at most
		asked   int           // at most
	}{
		{"nothing pending", func(float64) (int, error) { return 0, nil }, 0, "", 0, 1},
		{"for an hour", func(s float64) (int, error) { return pendingUntil(s, 3600), nil }, 0, "", time.Hour + time.Second, 61},
		{"through a restart", func(s float64) (int, error) {
			if s >= 100 && s < 150 {
				return 0, gone
			}
			return pendingUntil(s, 200), nil
		}, 0, "", 240 * time.Second, 100},
		{"the daemon stays away", func(s float64) (int, error) {
			if s >= 100 {
				return 0, refusal(push.ShuttingDown, "", 5*time.Second)
			}
			return 7, nil
		}, 0, "no; gave up after 1m0s", 185 * time.Second, 100},
		{"over", func(s float64) (int, error) { return 7, nil }, 90 * time.Second,
			`after 1m30s there are still 7 pushes with the label "L" queued or running`, 91 * time.Second, 3},
		{"over with one", func(s float64) (int, error) { return 1, nil }, time.Nanosecond,
			`after 1ns one push with the label "L" is still queued or running`, time.Second, 1},
		{"over without the daemon", func(s float64) (int, error) { return 0, gone }, 30 * time.Second,
			`the daemon did not say within 30s whether pushes with the label "L" are pending`, 33 * time.Second, 100},
		{"in time", func(s float64) (int, error) { return pendingUntil(s, 50), nil }, time.Minute, "", time.Minute, 2},
		{"a problem", func(float64) (int, error) { return 0, problem(push.InvalidParameter, "", 0) }, 0, "no", 0, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				d := &fake{list: func(ctx context.Context, q client.Query, _ int) (push.Page, error) {
					if q.Label != "L" || q.Limit != 1 || q.Wait <= 0 || q.Wait > time.Minute {
						t.Errorf("asked %+v", q)
					}
					end := time.Now().Add(q.Wait)
					for {
						n, err := test.pending(time.Since(begun).Seconds())
						if err != nil || n == 0 || !time.Now().Before(end) {
							return push.Page{Pending: n}, err
						}
						<-time.After(min(time.Second, time.Until(end)))
					}
				}}
				err := Settle(t.Context(), d, "L", test.timeout, aMinute)
				says := ""
				if err != nil {
					says = err.Error()
				}
				if e, is := errors.AsType[*GaveUpError](err); is {
					if _, is := errors.AsType[*client.ProblemError](e); !is {
						t.Errorf("%v has no problem in it", err)
					}
					says = "no" + e.Suffix()
				}
				if took := time.Since(begun); says != test.says || took > test.ended || d.lists > test.asked {
					t.Errorf("%q after %v and %d questions", says, took, d.lists)
				}
			})
		})
	}
}

// pendingUntil is 5 until that second, and then 0.
func pendingUntil(now, end float64) int {
	if now < end {
		return 5
	}
	return 0
}

func TestUnfinished(t *testing.T) {
	pages := map[string]push.Page{
		"":  {Pushes: []push.Receipt{{ID: "4"}, {ID: "3"}}, Next: "3"},
		"3": {Pushes: []push.Receipt{{ID: "2"}}, Next: "2"},
		"2": {},
	}
	list := func(_ context.Context, q client.Query, nth int) (push.Page, error) {
		if nth == 2 {
			return push.Page{}, lost
		}
		if q.Label != "L" || !slices.Equal(q.States, []push.State{push.Failed, push.Cancelled}) || q.Wait != 0 {
			t.Errorf("asked %+v", q)
		}
		return pages[q.Cursor], nil
	}
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		each := func(r push.Receipt) { ids = append(ids, r.ID) }
		if err := Unfinished(t.Context(), &fake{list: list}, "L", aMinute, each); err != nil || !slices.Equal(ids, []string{"4", "3", "2"}) {
			t.Errorf("%q, %v", ids, err)
		}
		pages["2"] = push.Page{Next: "2"}
		if err := Unfinished(t.Context(), &fake{list: list}, "L", aMinute, each); err == nil {
			t.Error("a list that goes round ends")
		}
	})
}

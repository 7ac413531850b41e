//go:build linux

package main

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestRunTimes has all jobs take their turns, each of which takes as long as on
// a quiet machine, or longer: each is idle for the same time, and the runs are
// as quick as is said of them.
func TestRunTimes(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		most time.Duration
	}{
		{"quick", nil, 5 * time.Minute},
		{"full", []string{"-full"}, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, err := parse(append(tt.args, "-daemon", "s3daemon"), t.Output())
				if err != nil {
					t.Fatal(err)
				}
				var jobs []*job
				for _, b := range o.cases(allCases()) {
					for _, who := range o.contestants() {
						if who.in(b) {
							j := &job{bench: b, who: who}
							j.turns = j.expected()
							jobs = append(jobs, j)
						}
					}
				}
				times, again := map[*job]int{}, 0 // measured, and prepared without that
				r := rota{
					idle: o.idle,
					prepare: func(_ context.Context, j *job) error {
						again++
						time.Sleep(preparing(j, times[j] == 0))
						return nil
					},
					measure: func(_ context.Context, j *job) error {
						again--
						if late := time.Since(j.due); late < 0 || late > grace {
							t.Errorf("%s, %s was idle for %v", j.id(), j.who.name, o.idle+late)
						}
						times[j]++
						time.Sleep(pushing(j, j.Measured))
						return nil
					},
				}
				begin := time.Now()
				for _, host := range hostsOf(o.cases(allCases())) {
					now := slices.DeleteFunc(slices.Clone(jobs), func(j *job) bool { return j.host() != host })
					if err := r.run(t.Context(), now, o.rounds); err != nil {
						t.Fatal(err)
					}
				}
				for _, j := range jobs {
					if times[j] != o.rounds {
						t.Errorf("%s, %s was measured %d times", j.id(), j.who.name, times[j])
					}
				}
				took := time.Since(begin)
				t.Logf("%d jobs took %v; %d were prepared again", len(jobs), took, again)
				if took > tt.most {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// TestKeptWaiting has a job be prepared for far longer than was expected, while
// another is idle: that is prepared again, and idle for as long as was asked for.
func TestKeptWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, slow := &job{}, &job{}
		prepared, measured := map[*job]int{}, map[*job]int{}
		r := rota{
			idle: 10 * time.Second,
			prepare: func(_ context.Context, j *job) error {
				if prepared[j]++; j == slow && prepared[j] == 1 {
					time.Sleep(time.Minute)
				}
				return nil
			},
			measure: func(_ context.Context, j *job) error {
				measured[j]++
				if late := time.Since(j.due); late > grace {
					t.Errorf("a job was kept waiting for %v", late)
				}
				return nil
			},
		}
		if err := r.run(t.Context(), []*job{first, slow}, 2); err != nil {
			t.Fatal(err)
		}
		if prepared[first] != 3 || prepared[slow] != 2 || measured[first] != 2 || measured[slow] != 2 {
			t.Errorf("the first was prepared %d times, the slow one %d, and they were measured %d and %d times",
				prepared[first], prepared[slow], measured[first], measured[slow])
		}
	})
}

// pushing is how long a job takes for files. Over a long link net/http has to
// open its window again each time.
func pushing(j *job, b burst) time.Duration {
	factor := 1.3
	if j.who.name == "net/http" {
		factor = 2
		if j.RTT == roundTrips[0] && b == single {
			factor = 10
		}
		if j.RTT == roundTrips[0] && j.Loss > 0 {
			factor = 12
		}
	}
	return time.Duration(factor * float64(limit(j.RTT, b)))
}

// preparing is how long all takes that comes before the idle time.
func preparing(j *job, first bool) time.Duration {
	var d time.Duration
	for _, b := range j.Before {
		d += pushing(j, b)
	}
	if first || j.Fresh {
		d += 500 * time.Millisecond
	}
	if j.Fresh {
		d += 5 * time.Second
	}
	if j.Complete && first {
		d += 5 * time.Second
	}
	return d
}

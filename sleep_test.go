package main

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

func TestSleep(t *testing.T) {
	for text, want := range map[string]time.Duration{"0": 0, "30": 30 * time.Second, "1m30s": 90 * time.Second, "24h": 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			err := run(t.Context(), []string{"sleep", text}, io.Discard, io.Discard)
			if took := time.Since(begun); err != nil || took != want {
				t.Errorf("sleep %s took %v, %v", text, took, err)
			}
		})
	}
	for _, args := range [][]string{{"sleep"}, {"sleep", ""}, {"sleep", "-1s"}, {"sleep", "25h"}, {"sleep", "soon"}, {"sleep", "1", "2"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); exitStatus(err) != 2 {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestSleepInterrupted: a signal ends it, and is no failure.
func TestSleepInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		begun := time.Now()
		if err := run(ctx, []string{"sleep", "1h"}, io.Discard, io.Discard); err != nil || time.Since(begun) != time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}

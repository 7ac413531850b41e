package throttle

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var th Lines
		var told atomic.Int64
		lines := func(n int) (let int) {
			for range n {
				if th.Next(func(left int) { told.Add(int64(left)) }) {
					let++
				}
			}
			return let
		}
		if let := lines(mostLines); let != mostLines {
			t.Errorf("%d lines of a few", let)
		}
		time.Sleep(time.Second)
		if let := lines(1000); let != mostLines || told.Load() != 0 {
			t.Errorf("%d lines of a flood, %d told", let, told.Load())
		}
		time.Sleep(time.Second / 2)
		if let := lines(1); let != 0 || told.Load() != 0 {
			t.Errorf("in the same second %d lines, %d told", let, told.Load())
		}
		time.Sleep(time.Second / 2)
		synctest.Wait()
		if told.Load() != 1001-mostLines {
			t.Errorf("after it %d told", told.Load())
		}
		if let := lines(1); let != 1 {
			t.Error("in the next second there is no line")
		}
		time.Sleep(time.Hour)
		if let := lines(2); let != 2 || told.Load() != 1001-mostLines {
			t.Errorf("an hour later %d lines, %d told", let, told.Load())
		}
	})
}

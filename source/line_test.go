package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stuck is a call that returns when it is let go.
type stuck chan struct{}

func (s stuck) call() int {
	<-s
	return 1
}

func ignore(int) {}

// TestPatience: a call that hangs holds those who wait for it as long as they
// are ready to wait, and those who come later for no time at all.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newLines(mostCalls)
		l := a.join("/f")
		let := make(stuck)
		late := make(chan int, 1)
		begun := time.Now()
		if _, err := do(t.Context(), l, 10*time.Second, let.call, func(n int) { late <- n }); err != errHangs || time.Since(begun) != 10*time.Second {
			t.Errorf("do: %v after %v, want %v after 10 s", err, time.Since(begun), errHangs)
		}
		begun = time.Now()
		for range 3 {
			if _, err := do(t.Context(), l, 10*time.Second, func() int { panic("a second call") }, ignore); err != errHangs || time.Since(begun) != 0 {
				t.Errorf("do, once it is known: %v after %v, want %v at once", err, time.Since(begun), errHangs)
			}
		}
		close(let)
		if n := <-late; n != 1 {
			t.Errorf("what came late was %d", n)
		}
		synctest.Wait() // until it is known that it has returned
		if n, err := do(t.Context(), l, time.Second, func() int { return 2 }, ignore); n != 2 || err != nil {
			t.Errorf("do, once it has returned = %d, %v", n, err)
		}
		l.hangs() // says who had given it up just before it returned
		l.leave()
		if a.hang != 0 || a.devices[0].hang+len(a.devices[0].places)+len(a.byPath)+len(a.places) != 0 {
			t.Errorf("left behind: %d hang, on %v, lines %v", a.hang, a.devices[0], a.byPath)
		}
	})
}

// TestContextEndsWaiting: whoever leaves waits no longer, and what he has not
// waited for does not count as hanging.
func TestContextEndsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newLines(mostCalls)
		l := a.join("/f")
		let := make(stuck)
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		for range 2 { // the second waits for its turn
			go do(ctx, l, 10*time.Second, let.call, ignore)
		}
		begun := time.Now()
		if _, err := do(ctx, l, 10*time.Second, let.call, ignore); err != cause || time.Since(begun) != time.Second {
			t.Errorf("do: %v after %v, want the cause after 1 s", err, time.Since(begun))
		}
		if a.hang != 0 {
			t.Error("it counts as hanging after a second")
		}
		time.Sleep(9 * time.Second)
		if _, err := do(t.Context(), l, 10*time.Second, func() int { panic("a second call") }, ignore); err != errHangs || a.hang != 1 {
			t.Errorf("after ten: %v, and %d calls hang", err, a.hang)
		}
		close(let)
		synctest.Wait()
		if len(a.places) != 0 {
			t.Errorf("%d calls under way", len(a.places))
		}
	})
}

// TestWary: where a call hangs, the others are waited for less; on another
// device they are not.
func TestWary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newLines(mostCalls)
		let := make(stuck)
		defer close(let)
		on := func(path string, device uint64) *line {
			l := a.join(path)
			if device != 0 {
				l.isOn(device)
			}
			return l
		}
		hangsAfter := func(l *line, patience time.Duration) time.Duration {
			begun := time.Now()
			if _, err := do(t.Context(), l, patience, let.call, ignore); err != errHangs {
				t.Errorf("do on %s: %v", l.path, err)
			}
			return time.Since(begun)
		}
		for _, tt := range []struct {
			path     string
			device   uint64
			patience time.Duration
			want     time.Duration
		}{
			{"/first", 7, readPatience, readPatience},
			{"/beside", 7, readPatience, waryPatience},
			{"/unknown", 0, openPatience, waryPatience},
			{"/elsewhere", 8, readPatience, readPatience},
			{"/synced", 7, syncPatience, syncPatience},
		} {
			if got := hangsAfter(on(tt.path, tt.device), tt.patience); got != tt.want {
				t.Errorf("%s was waited for %v, want %v", tt.path, got, tt.want)
			}
		}
	})
}

// TestSlowCalls: many calls on one path take their turns, and each has all of its
// patience, however long those before it took.
func TestSlowCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newLines(mostCalls)
		l := a.join("/f")
		slowly := func(d time.Duration) func() int {
			return func() int {
				time.Sleep(d)
				return 1
			}
		}
		var callers sync.WaitGroup
		callers.Go(func() {
			if _, err := do(t.Context(), l, syncPatience, slowly(4*time.Minute), ignore); err != nil {
				t.Errorf("the one of minutes: %v", err)
			}
		})
		synctest.Wait()
		for range 20 {
			callers.Go(func() {
				if _, err := do(t.Context(), l, 10*time.Second, slowly(9*time.Second), ignore); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		if a.hang != 0 {
			t.Errorf("%d calls hang", a.hang)
		}
	})
}

// TestTurnBehindHanging: who waits behind a call is told when that should have
// returned, whatever his own patience.
func TestTurnBehindHanging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newLines(mostCalls)
		l := a.join("/f")
		let := make(stuck)
		defer close(let)
		go do(t.Context(), l, time.Minute, let.call, ignore)
		synctest.Wait()
		begun := time.Now()
		if _, err := do(t.Context(), l, time.Second, func() int { panic("a second call") }, ignore); err != errHangs || time.Since(begun) != time.Minute {
			t.Errorf("do: %v after %v, want %v after a minute", err, time.Since(begun), errHangs)
		}
	})
}

// TestPlacesOfOneDevice: however many calls hang on one device, or on what is not
// known, others can be made elsewhere.
func TestPlacesOfOneDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, device := range []uint64{0, 7} {
			a := newLines(8)
			let := make(stuck)
			on := func(path string, device uint64) *line {
				l := a.join(path)
				l.isOn(device)
				return l
			}
			for i := range 10 {
				go do(t.Context(), on(fmt.Sprint("/", i), device), time.Second, let.call, ignore)
			}
			time.Sleep(time.Minute)
			begun := time.Now()
			_, err := do(t.Context(), on("/more", device), time.Second, func() int { panic("a call too many") }, ignore)
			if crowd, is := err.(*crowdedError); !is || *crowd != (crowdedError{4, 4}) || time.Since(begun) != 0 {
				t.Errorf("a fifth of the device %d: %v after %v, want that 4 hang, at once", device, err, time.Since(begun))
			}
			if text := hangs("/more", err).Detail; !strings.Contains(text, "4 calls on files are under way, 4 of which hang") {
				t.Errorf("it says %q", text)
			}
			if n, err := do(t.Context(), on("/sound", 8), time.Second, func() int { return 1 }, ignore); n != 1 || err != nil {
				t.Errorf("on another device: %d, %v", n, err)
			}
			close(let)
			synctest.Wait()
			if len(a.places)+len(a.devices[device].places)+a.hang != 0 {
				t.Errorf("left behind: %d calls, %d of the device, %d hang", len(a.places), len(a.devices[device].places), a.hang)
			}
		}
	})
}

// TestMostCalls: when all places are taken by calls that hang, no other call is
// made; while they are taken by calls that do not, others wait their turn.
func TestMostCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newLines(4) // two of which are for what is not known
		let := make(stuck)
		for _, path := range []string{"/a", "/b"} {
			go do(t.Context(), a.join(path), 10*time.Second, let.call, ignore)
		}
		synctest.Wait()
		third := a.join("/c")
		begun := time.Now()
		if _, err := do(t.Context(), third, time.Second, func() int { panic("a third call") }, ignore); !isCrowded(err, 0) || time.Since(begun) != time.Second {
			t.Errorf("while they may return: %v after %v, want that there are two, after 1 s", err, time.Since(begun))
		}
		time.Sleep(10 * time.Second)
		begun = time.Now()
		if _, err := do(t.Context(), a.join("/d"), time.Second, func() int { panic("a third call") }, ignore); !isCrowded(err, 2) || time.Since(begun) != 0 {
			t.Errorf("when they hang: %v after %v, want that two hang, at once", err, time.Since(begun))
		}
		close(let)
		synctest.Wait()
		for _, l := range []*line{third, a.join("/e")} { // who got no place has not kept the turn either
			if n, err := do(t.Context(), l, time.Second, func() int { return 3 }, ignore); n != 3 || err != nil {
				t.Errorf("%s, when they have returned: %d, %v", l.path, n, err)
			}
		}
	})
}

// isCrowded reports whether two calls were under way, so many of which hang.
func isCrowded(err error, hanging int) bool {
	crowd, is := err.(*crowdedError)
	return is && *crowd == crowdedError{2, hanging}
}

// TestCloseWaits: a file is closed when its turn comes, however late.
func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newLines(mostCalls)
		l := a.join("/f")
		let := make(stuck)
		if _, err := do(t.Context(), l, time.Second, let.call, ignore); err != errHangs {
			t.Fatal(err)
		}
		c := make(closer)
		go l.close(c)
		time.Sleep(time.Hour)
		select {
		case <-c:
			t.Error("it was closed while a call on it was under way")
		default:
		}
		close(let)
		<-c
	})
}

// closer is closed once.
type closer chan struct{}

func (c closer) Close() error {
	close(c)
	return nil
}

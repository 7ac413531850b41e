package uploader

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
)

// ask adds a request to those that wait.
func (q *slotQueue) ask(who *turn, k kind) *ticket {
	t := &ticket{who: who, kind: k, granted: make(chan struct{})}
	q.add(t)
	return t
}

func TestPartsLeaveRoomForSmallFiles(t *testing.T) {
	for _, tc := range []struct{ limit, parts int }{{1, 1}, {2, 1}, {8, 7}, {16, 14}, {25, 22}, {100, 88}} {
		q := newSlotQueue(tc.limit)
		huge := new(turn)
		for range 10 * tc.limit {
			q.ask(huge, part)
		}
		granted := 0
		for q.next() != nil {
			granted++
		}
		if granted != tc.parts {
			t.Errorf("of %d slots parts got %d, want %d", tc.limit, granted, tc.parts)
		}
		small := q.ask(new(turn), single)
		if tc.limit > 1 && q.next() != small {
			t.Errorf("with %d slots a small file has to wait for a part of a large one", tc.limit)
		}
	}
}

func TestSmallFilesLeaveRoomForParts(t *testing.T) {
	for _, limit := range []int{1, 2, 8, 25} {
		q := newSlotQueue(limit)
		large, small := new(turn), new(turn)
		for range limit {
			q.ask(small, single)
		}
		for range limit {
			q.next()
		}
		q.ask(large, part)
		for range 1000 {
			q.ask(small, single) // an endless stream
		}
		// As soon as slots come free, the part has its turn.
		for n := 1; ; n++ {
			q.done(small, single)
			if next := q.next(); next.kind == part {
				break
			}
			if n > limit {
				t.Fatalf("with %d slots a part is still waiting after %d small files", limit, n)
			}
		}
	}
}

func TestSmallFilesGoInOrder(t *testing.T) {
	q := newSlotQueue(1)
	var want []*ticket
	for range 10 {
		want = append(want, q.ask(new(turn), single))
	}
	for i, ticket := range want {
		if got := q.next(); got != ticket {
			t.Fatalf("the file at place %d was not the one granted", i)
		}
		q.done(ticket.who, single)
	}
}

func TestLargeFilesShareEvenly(t *testing.T) {
	q := newSlotQueue(8) // 7 for parts
	first, second, third := new(turn), new(turn), new(turn)
	for _, who := range []*turn{first, second, third} {
		for range 50 {
			q.ask(who, part)
		}
	}
	for q.next() != nil {
	}
	if first.held != 3 || second.held != 2 || third.held != 2 {
		t.Errorf("seven slots are shared %d, %d, %d", first.held, second.held, third.held)
	}
	// One that comes later has its share as soon as slots come free.
	late := new(turn)
	q.ask(late, part)
	q.done(first, part)
	if q.next().who != late {
		t.Error("a large file that holds nothing waits behind one that holds slots")
	}
}

func TestRemoveForgetsATicket(t *testing.T) {
	q := newSlotQueue(1)
	a, b := q.ask(new(turn), single), q.ask(new(turn), single)
	if !q.remove(a) || q.remove(a) {
		t.Error("a waiting ticket is removed once")
	}
	if q.next() != b || q.next() != nil || q.remove(b) {
		t.Error("the other one is granted, and then no longer waits")
	}
}

// TestSlotsNeverOversubscribed asks and gives back at random and checks the
// bounds after each step; in the end nothing may be held or wait.
func TestSlotsNeverOversubscribed(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		limit := 1 + r.IntN(30)
		q := newSlotQueue(limit)
		turns := make([]*turn, 5)
		for i := range turns {
			turns[i] = new(turn)
		}
		var held []*ticket
		waiting := 0
		for step := range 500 {
			if r.IntN(2) == 0 && step < 400 {
				q.ask(turns[r.IntN(len(turns))], kind(r.IntN(2)))
				waiting++
			} else if len(held) > 0 {
				i := r.IntN(len(held))
				q.done(held[i].who, held[i].kind)
				held = append(held[:i], held[i+1:]...)
			}
			for next := q.next(); next != nil; next = q.next() {
				held = append(held, next)
				waiting--
			}
			if q.singles+q.parts != len(held) || len(held) > limit || limit > 1 && q.parts > limit-q.reserved {
				t.Fatalf("seed %d: of %d slots %d are held by parts, %d by others, %d in truth", seed, limit, q.parts, q.singles, len(held))
			}
			if waiting > 0 && len(held) == 0 {
				t.Fatalf("seed %d: %d wait while all slots are free", seed, waiting)
			}
		}
	}
}

func TestAcquireGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1)
		who := new(turn)
		if err := s.acquire(t.Context(), who, single); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() { failed <- s.acquire(ctx, who, single) }()
		synctest.Wait() // it waits now
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Fatalf("acquire with a cancelled context: %v", err)
		}
		s.release(who, single)
		if err := s.acquire(t.Context(), who, single); err != nil || s.inUse() != 1 {
			t.Fatalf("the slot is lost: %v, %d in use", err, s.inUse())
		}
		s.release(who, single)
	})
}

package journal

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// TestModel does all that can be done to a journal at random, on a disk that
// fails now and then, and compares what is in the journal in the end with what
// the answers said.
func TestModel(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &model{
					t: t, rng: rand.New(rand.NewPCG(seed, 0)), fault: &broken{landed: seed%2 == 0},
					is: map[push.ID]*Record{}, keys: map[string]push.ID{},
					uploads: map[string]*Upload{}, parts: map[string]map[int32]*Part{},
				}
				m.j = open(t, Config{Dir: t.TempDir(), commit: m.fault.commit})
				for range 300 {
					m.step()
				}
				m.fault.set(nil)
				time.Sleep(retryMost)
				synctest.Wait()
				m.compare()
				m.j = reopen(t, m.j)
				m.compare()
			})
		})
	}
}

type model struct {
	t     *testing.T
	rng   *rand.Rand
	fault *broken
	j     *Journal

	// What must be in the journal once all is written, since nothing of it can be
	// refused; and how many such changes were submitted.
	uploads map[string]*Upload
	parts   map[string]map[int32]*Part
	given   int

	mu      sync.Mutex          // guards the rest: answers come on another goroutine
	is      map[push.ID]*Record // what must be in the journal
	keys    map[string]push.ID
	queued  []push.ID // that may be ended
	ended   []push.ID // that may be put back
	refused []push.ID
	heard   int // how many of given are said to be on disk
}

// step submits a few changes, to different pushes, and waits for the answers.
func (m *model) step() {
	m.fault.set(nil)
	if m.rng.IntN(4) == 0 {
		m.fault.set(syscall.EIO)
	}
	if m.rng.IntN(3) == 0 {
		time.Sleep(retryMost) // else what comes after a failure may be refused at once
	}
	for range 1 + m.rng.IntN(5) {
		switch m.rng.IntN(5) {
		case 0:
			m.accept()
		case 1:
			m.end()
		case 2:
			m.requeue()
		default:
			m.upload()
		}
	}
	synctest.Wait()
}

func (m *model) accept() {
	r := example(m.rng.IntN(1e6))
	if m.rng.IntN(2) == 0 {
		r.IdempotencyKey = fmt.Sprint(m.rng.IntN(50))
	}
	m.j.Accept(r, func(err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		var dup *DuplicateError
		switch {
		case err == nil:
			if id, taken := m.keys[r.IdempotencyKey]; taken && r.IdempotencyKey != "" {
				m.t.Errorf("the key %s of push %s was taken again", r.IdempotencyKey, id)
			}
			m.is[r.ID] = r
			m.keys[r.IdempotencyKey] = r.ID
			m.queued = append(m.queued, r.ID)
		case errors.As(err, &dup):
			if m.keys[r.IdempotencyKey] != dup.ID {
				m.t.Errorf("the key %s is said to be that of push %s, and is that of %s", r.IdempotencyKey, dup.ID, m.keys[r.IdempotencyKey])
			}
		default:
			m.refused = append(m.refused, r.ID)
		}
	})
}

// pick takes one out of a list, and returns what must be of it.
func (m *model) pick(list *[]push.ID) (Record, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(*list) == 0 {
		return Record{}, false
	}
	i, last := m.rng.IntN(len(*list)), len(*list)-1
	id := (*list)[i]
	(*list)[i] = (*list)[last]
	*list = (*list)[:last]
	return *m.is[id], true
}

func (m *model) end() {
	was, ok := m.pick(&m.queued)
	if !ok {
		return
	}
	r := ended(was)
	m.j.End(r, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.is[r.ID] = r
		m.ended = append(m.ended, r.ID)
	})
}

func (m *model) requeue() {
	r, ok := m.pick(&m.ended)
	if !ok {
		return
	}
	r.State, r.RetriedAt = push.Queued, r.AcceptedAt.Add(time.Second)
	m.j.Requeue(&r, func(err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if err != nil {
			m.ended = append(m.ended, r.ID)
			return
		}
		m.is[r.ID] = &r
		m.queued = append(m.queued, r.ID)
	})
}

// upload changes something of the uploads of a few pushes.
func (m *model) upload() {
	u := exampleUpload(push.ID{byte(m.rng.IntN(3))}, m.rng.IntN(3))
	key := string(uploadKey(u))
	_, there := m.uploads[key]
	switch m.rng.IntN(6) {
	case 0:
		m.j.DropUpload(u, m.told())
		delete(m.uploads, key)
		delete(m.parts, key)
	case 1:
		m.j.Barrier(m.told())
	case 2, 3:
		u.ID = fmt.Sprint(m.rng.IntN(1e6))
		m.j.PutUpload(u, m.told())
		m.uploads[key] = u
		if !there {
			m.parts[key] = map[int32]*Part{}
		}
	default:
		p := examplePart(1 + m.rng.IntN(5))
		p.ETag = fmt.Sprint(m.rng.IntN(1e6))
		m.j.PutPart(u, p, m.told())
		if there {
			m.parts[key][p.Number] = p
		}
	}
}

// told returns the done of the next change that cannot be refused: it must be
// called once, after those of all before it.
func (m *model) told() func() {
	n := m.given
	m.given++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if n != m.heard {
			m.t.Errorf("change %d is on disk before change %d", n, m.heard)
		}
		m.heard = n + 1
	}
}

func (m *model) compareUploads() {
	m.t.Helper()
	if m.heard != m.given || m.given < 100 {
		m.t.Errorf("of %d changes %d are said to be on disk", m.given, m.heard)
	}
	n, parts := 0, 0
	err := m.j.EachUpload(func(u *Upload) error {
		key := uploadKey(u)
		if n++; !reflect.DeepEqual(u, m.uploads[string(key)]) {
			m.t.Errorf("got  %+v\nwant %+v", u, m.uploads[string(key)])
		}
		var want []*Part
		for _, number := range slices.Sorted(maps.Keys(m.parts[string(key)])) {
			want = append(want, m.parts[string(key)][number])
		}
		wantParts(m.t, m.j, u, want...)
		parts += len(want)
		return nil
	})
	c, checkErr := check(m.j.file)
	if err = errors.Join(err, checkErr); err != nil || n != len(m.uploads) || int(c.uploads) != n || int(c.parts) != parts || parts == 0 {
		m.t.Errorf("%d uploads with %d parts, want %d; %+v, %v", n, parts, len(m.uploads), c, err)
	}
}

func (m *model) compare() {
	m.t.Helper()
	m.compareUploads()
	n := 0
	err := m.j.Since(push.ID{}, func(r *Record) bool {
		n++
		if !reflect.DeepEqual(r, m.is[r.ID]) {
			m.t.Errorf("got  %+v\nwant %+v", r, m.is[r.ID])
		}
		return true
	})
	if err != nil || n != len(m.is) {
		m.t.Errorf("%d pushes, want %d; %v", n, len(m.is), err)
	}
	for _, id := range m.refused {
		if _, found, _ := m.j.Get(id); found {
			m.t.Errorf("push %s was refused and is there", id)
		}
	}
	delete(m.keys, "")
	for key, want := range m.keys {
		if id, _, found, err := m.j.FindKey(key); id != want || !found || err != nil {
			m.t.Errorf("key %s: %s, %v, %v, want %s", key, id, found, err, want)
		}
	}
	if c, err := check(m.j.file); err != nil || int(c.queue+c.history) != n {
		m.t.Errorf("%+v, %v", c, err)
	}
	if len(m.refused) == 0 || n == 0 {
		m.t.Errorf("%d pushes and %d refused are too few", n, len(m.refused))
	}
}

package uploader

import (
	"slices"

	"github.com/lsst-dm/s3daemon/push"
)

const (
	// changesKept is how many changes are kept for who asks for them. Whoever asks once
	// a second of a busy daemon misses most of them, and could not look at more.
	changesKept = 512
	// mostChanged and mostRunning are how many pushes Changes tells of.
	mostChanged = 100
	mostRunning = 50
)

// changes has the pushes that changed last, in a ring: the n-th change, from 1, is at
// n-1. It costs those who push a few nanoseconds, and what it means is found out when
// somebody asks.
type changes struct {
	ids   [changesKept]push.ID
	count uint64 // of changes, ever
}

// note notes that a push was accepted, has begun, or waits again, ended or was put back.
func (c *changes) note(id push.ID) {
	c.ids[c.count%changesKept] = id
	c.count++
}

// since returns the pushes that have changed since there were so many changes, each
// once, the last first, and of how many more it does not tell: those that are too many,
// and changes that are not known any more.
func (c *changes) since(after uint64, most int) (ids []push.ID, left int) {
	known := max(after, c.count-min(c.count, changesKept))
	seen := make(map[push.ID]bool)
	for n := c.count; n > known; n-- {
		id := c.ids[(n-1)%changesKept]
		switch {
		case seen[id]:
			continue
		case len(ids) < most:
			ids = append(ids, id)
		default:
			left++
		}
		seen[id] = true
	}
	return ids, left + int(known-after)
}

// Changes returns the pushes that have changed since the call that gave the number:
// that were accepted, began, wait for another attempt, ended, or were put back. Each is
// there once, as it is now, the one that changed last first, and left is how many more
// there may be. Beside these there are those that run, of which more is sent at any
// time. The first call is with 0: it tells of what is still known.
//
// What happens during the call is told by it or the next one, or both.
func (u *Uploader) Changes(after uint64) (changed []push.Receipt, now uint64, left int) {
	u.mu.Lock()
	recent := u.queue.changes
	running := u.queue.atWorkIDs()
	u.mu.Unlock()
	slices.SortFunc(running, push.ID.Compare)
	running = running[:min(len(running), mostRunning)]
	ids, left := recent.since(after, mostChanged)
	for _, id := range running {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		if receipt, err := u.stands(id); err == nil { // else it has left the history
			changed = append(changed, inList(receipt))
		}
	}
	return changed, recent.count, left
}

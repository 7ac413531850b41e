package journal

import (
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// How much is pruned at once, so that no transaction gets long by it.
const (
	pruneSome  = 256    // pushes looked at in a transaction that has other things to write
	pruneMany  = 10_000 // in one of Open's
	pruneEvery = time.Minute
)

// pruner takes old pushes out of the history. It only ever adds to a
// transaction that is made anyway, so that an idle journal writes nothing.
//
// Pushes lie in the order of acceptance, but grow old by when they ended. So
// one that waited for days, and has just ended, can lie before others that are
// to go. Hence it sweeps from the oldest to the first that was accepted too
// lately to be old, a piece in each transaction, and rests for a while after.
type pruner struct {
	next push.ID   // where the sweep goes on
	due  time.Time // when the next one begins
}

// prune removes pushes, of which it looks at most at limit, and returns how
// many. It leaves more than HistoryCount alone as long as they are not more than
// slack.
func (p *pruner) prune(b *buckets, cfg *Config, limit, slack int) (int, error) {
	count, err := pruneCount(b, cfg.HistoryCount, limit, slack)
	if err != nil || cfg.HistoryAge <= 0 || cfg.now().Before(p.due) {
		return count, err
	}
	aged, err := p.sweep(b, cfg, limit)
	return count + aged, err
}

// slack is how far the history may outgrow its count before it is pruned: the
// removal of many pushes next to each other costs little more than that of one.
func (c *Config) slack() int { return min(pruneSome, c.HistoryCount/8) }

// pruneCount removes the oldest pushes where there are more than most.
func pruneCount(b *buckets, most, limit, slack int) (int, error) {
	excess := int(b.totals.history) - most
	if most <= 0 || excess <= slack {
		return 0, nil
	}
	var old []aged
	c := b.history.Cursor()
	for k, v := c.First(); k != nil && len(old) < min(excess, limit); k, v = c.Next() {
		old = append(old, oldPush(k, v))
	}
	return len(old), b.drop(old)
}

// sweep removes pushes that ended more than HistoryAge ago.
func (p *pruner) sweep(b *buckets, cfg *Config, limit int) (int, error) {
	now := cfg.now()
	before := now.Add(-cfg.HistoryAge)
	var old []aged
	c := b.history.Cursor()
	k, v := c.Seek(p.next[:])
	for looked := 0; k != nil && !push.ID(k).Time().After(before); looked++ {
		if looked == limit {
			p.next = push.ID(k)
			return len(old), b.drop(old)
		}
		if finishedAt(v).Before(before) {
			old = append(old, oldPush(k, v))
		}
		k, v = c.Next()
	}
	*p = pruner{due: now.Add(min(pruneEvery, cfg.HistoryAge/8))}
	return len(old), b.drop(old)
}

// aged is a push that is to go.
type aged struct {
	id  push.ID
	key string // its idempotency key
}

func oldPush(k, v []byte) aged { return aged{id: push.ID(k), key: string(idempotencyKey(v))} }

// drop removes pushes from the history, with their idempotency keys.
func (b *buckets) drop(old []aged) error {
	for _, o := range old {
		if _, err := b.history.remove(o.id[:]); err != nil {
			return err
		}
		if err := b.dropKey([]byte(o.key), o.id); err != nil {
			return err
		}
	}
	return nil
}

package uploader

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// hashOf tells one request from another, whatever its JSON or form looked like.
func hashOf(req push.Request) [32]byte {
	// The journal has hashes of earlier versions, which knew these fields alone.
	text := fmt.Appendf(nil, "%q", struct {
		file, destination, label, contentType string
		metadata, tags                        map[string]string // in the order of their keys
		storageClass                          string
	}{req.File, req.Destination, req.Label, req.ContentType, req.Metadata, req.Tags, req.StorageClass})
	if req.Encryption != "" {
		text = fmt.Appendf(text, "%q%q", req.Encryption, req.KMSKeyID)
	}
	if req.CreateOnly() {
		text = append(text, " create only"...)
	}
	return sha256.Sum256(text)
}

func sameRequest(a, b [32]byte) error {
	if a != b {
		return push.Errorf(push.IdempotencyReused, "the Idempotency-Key was used for another request: make a new one for each push")
	}
	return nil
}

// repeated returns the push that the key was used for before.
func (u *Uploader) repeated(key string, hash [32]byte) (push.ID, bool, error) {
	if key == "" {
		return push.ID{}, false, nil
	}
	id, before, found, err := u.journal.FindKey(key)
	if err != nil {
		return push.ID{}, false, unreadable(err)
	}
	if !found {
		return push.ID{}, false, nil
	}
	return id, true, sameRequest(hash, before)
}

// unreadable explains that the journal could not be read.
func unreadable(err error) error {
	return &push.Error{Code: push.Internal, Detail: "the journal cannot be read: the daemon's log has the cause", Err: err}
}

// join waits for a push that was accepted before as if it were the caller's
// own, and answers as Push does.
func (u *Uploader) join(ctx context.Context, id push.ID, wait time.Duration) (push.Receipt, error) {
	e, t, r, err := u.find(ctx, id)
	switch {
	case err != nil:
		return push.Receipt{}, err
	case e == nil:
		return endOf(r)
	case wait == 0:
		return u.describe(r), nil
	}
	u.mu.Lock()
	if t.final == nil && !t.left {
		if e.wanted == 0 {
			t.wantedSince = time.Now()
		}
		u.queue.setWanted(e, 1)
	}
	u.mu.Unlock()
	t.await(ctx, wait)
	return u.answer(e, t, true)
}

// answer says what has become of the push, to a caller who from now on does
// not wait for it any more, if he ever did.
func (u *Uploader) answer(e *entry, t *task, waited bool) (push.Receipt, error) {
	u.mu.Lock()
	if t.final != nil {
		u.mu.Unlock()
		if t.failure != nil {
			return receiptOf(t.final), t.failure
		}
		return endOf(t.final)
	}
	if waited && !t.left {
		u.queue.setWanted(e, -1)
	}
	left, r, id := t.left, t.record, e.id
	if waited && e.wanted == 0 && e.stage != started && u.queue.size > keptRecords {
		t.record = nil // whoever needs it reads it
	}
	u.mu.Unlock()
	if r == nil {
		kept, _, err := u.journal.Get(id)
		if err != nil {
			return push.Receipt{ID: id.String()}, unreadable(err)
		}
		r = &kept
	}
	if left && waited {
		return u.describe(r), errStays(r)
	}
	return u.describe(r), nil
}

// errStays tells a caller whose push is not over when the daemon stops.
func errStays(r *journal.Record) error {
	return push.Errorf(push.ShuttingDown,
		"the daemon is shutting down before %s was delivered; the push is on disk and goes on when the daemon is started again: ask GET /pushes/%s then, or push again",
		r.Request.Destination, r.ID)
}

// endOf returns a push that has ended as Push does.
func endOf(r *journal.Record) (push.Receipt, error) {
	receipt := receiptOf(r)
	switch {
	case r.State == push.Done || r.Problem == nil:
		return receipt, nil
	}
	return receipt, &push.Error{Code: r.Problem.Code, Detail: r.Problem.Detail, Store: r.Problem.Store}
}

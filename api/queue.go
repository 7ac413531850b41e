package api

import (
	"errors"
	"net/http"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

func (a *api) list(w http.ResponseWriter, r *http.Request) {
	filter, wait, err := decodeList(r)
	if err != nil {
		a.refuse(w, err)
		return
	}
	pending := -1
	if wait > 0 { // which may take an hour, in which no page waits too
		passed, err := whileWaiting(a.waits, wait, func(wait time.Duration) (push.Page, error) {
			return a.Queue.List(r.Context(), push.Filter{Label: filter.Label, Limit: 1}, wait)
		})
		if err != nil {
			a.fail(w, "", err)
			return
		}
		pending = passed.Pending
	}
	a.writePage(w, r, filter, pending)
}

func (a *api) get(w http.ResponseWriter, r *http.Request) {
	id, wait, err := decodeGet(r)
	if err != nil {
		a.refuse(w, err)
		return
	}
	receipt, err := whileWaiting(a.waits, wait, func(wait time.Duration) (push.Receipt, error) {
		return a.Queue.Get(r.Context(), id, wait)
	})
	if err != nil {
		a.failPush(w, id, err)
		return
	}
	replyReceipt(w, http.StatusOK, receipt)
}

func (a *api) cancel(w http.ResponseWriter, r *http.Request) {
	id, err := decodeChange(r)
	if err != nil {
		a.refuse(w, err)
		return
	}
	receipt, err := a.Queue.Cancel(r.Context(), id)
	if err != nil {
		a.failPush(w, id, err)
		return
	}
	status := http.StatusOK
	if !receipt.State.Ended() { // the store is still to be asked what it has
		status = http.StatusAccepted
	}
	locate(w, receipt.ID)
	replyReceipt(w, status, receipt)
}

func (a *api) retry(w http.ResponseWriter, r *http.Request) {
	id, err := decodeChange(r)
	if err != nil {
		a.refuse(w, err)
		return
	}
	receipt, err := a.Queue.Retry(r.Context(), id)
	if err != nil {
		a.failPush(w, id, err)
		return
	}
	locate(w, receipt.ID)
	replyReceipt(w, http.StatusAccepted, receipt)
}

// failPush answers with an error about the push that the path names. The
// problem has its id, unless there is no such push.
func (a *api) failPush(w http.ResponseWriter, id push.ID, err error) {
	var e *push.Error
	if errors.As(err, &e) && e.Code == push.PushNotFound {
		a.fail(w, "", err)
		return
	}
	a.fail(w, id.String(), err)
}

// locate says where the push can be asked for from now on.
func locate(w http.ResponseWriter, id string) {
	w.Header().Set("Location", "/pushes/"+id)
}

func replyReceipt(w http.ResponseWriter, status int, receipt push.Receipt) {
	reply(w, status, CompleteReceipt(receipt))
}

// CompleteReceipt returns a receipt as callers get it: the problem in it has its
// HTTP status.
func CompleteReceipt(r push.Receipt) push.Receipt {
	r.Problem = withStatus(r.Problem)
	return r
}

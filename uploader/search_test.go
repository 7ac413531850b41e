package uploader

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// TestListByText looks for pushes that wait, run and have ended, by each field.
func TestListByText(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "Bias_R22.fits", 10)
	var ids []push.ID
	for i := range 4 {
		receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/Flat/%d", i), Label: fmt.Sprint("Night", i%2)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, parseID(t, receipt.ID))
	}
	g := r.hold(t, true, pass)
	for i := range 6 {
		ids = append(ids, r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/dark/%d", i), Label: fmt.Sprint("Night", i%2)}))
	}
	for range 4 { // as many as there are places
		<-g.arrived
	}
	for _, tc := range []struct {
		filter push.Filter
		want   []int
	}{
		{push.Filter{Text: "bias_r22"}, []int{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
		{push.Filter{Text: "/DARK/"}, []int{9, 8, 7, 6, 5, 4}},
		{push.Filter{Text: "flat", States: []push.State{push.Done}}, []int{3, 2, 1, 0}},
		{push.Filter{Text: "flat", States: []push.State{push.Running}}, nil},
		{push.Filter{Text: "bucket/dark", States: []push.State{push.Running}}, []int{7, 6, 5, 4}},
		{push.Filter{Text: "dark", States: []push.State{push.Queued}, Label: "Night1"}, []int{9}},
		{push.Filter{Text: "nIGHT1"}, []int{9, 7, 5, 3, 1}},
		{push.Filter{Text: "night1", Before: ids[5]}, []int{3, 1}},
		{push.Filter{Text: "night1", Label: "night1"}, nil}, // which is to the letter
		{push.Filter{Text: ids[2].String()}, []int{2}},
		{push.Filter{Text: strings.ToUpper(ids[8].String()[20:])}, []int{8}},
		{push.Filter{Text: "s3://bucket/flat/3"}, []int{3}},
		{push.Filter{Text: "nowhere"}, nil},
		{push.Filter{Text: strings.Repeat("x", push.MaxTextBytes)}, nil},
	} {
		page, err := r.List(t.Context(), tc.filter, 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range page.Pushes {
			got = append(got, p.ID)
		}
		var want []string
		for _, i := range tc.want {
			want = append(want, ids[i].String())
		}
		if strings.Join(got, " ") != strings.Join(want, " ") || page.Next != "" {
			t.Errorf("%+v finds %v and then %q, want %v", tc.filter, got, page.Next, want)
		}
	}
	page, err := r.List(t.Context(), push.Filter{Text: "night0", Limit: 2}, 0)
	if err != nil || len(page.Pushes) != 2 || page.Next != ids[6].String() {
		t.Errorf("a page of two: %+v, %v", page, err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if page, err := r.List(gone, push.Filter{Text: "nowhere"}, 0); err != nil || len(page.Pushes) != 0 || page.Next != "" {
		t.Errorf("for a caller who has left: %+v, %v", page, err)
	}
	g.let()
	for _, id := range ids {
		r.ended(t, id, push.Done)
	}
}

// FuzzTextSearch compares with what strings.Contains says of each field in small letters.
func FuzzTextSearch(f *testing.F) {
	f.Add("Night", "/data/NIGHT12/a.fits", "s3://raw/a", "", []byte{1})
	f.Add("0000-7", "", "", "", []byte{})
	f.Add("\xff\xc3", "\xc3\xff\xc3", "", "", []byte{})
	f.Add("K", "\u212a", "", "", []byte{}) // a sign that is a k to Unicode
	f.Fuzz(func(t *testing.T, text, file, destination, label string, id []byte) {
		if text == "" {
			t.Skip()
		}
		b := journal.Brief{File: []byte(file), Destination: []byte(destination), Label: []byte(label)}
		copy(b.ID[:], id)
		small := func(s string) string {
			out := []byte(s)
			for i, c := range out {
				if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZ", c) >= 0 {
					out[i] = c | 0x20
				}
			}
			return string(out)
		}
		want := false
		for _, field := range []string{file, destination, label, b.ID.String()} {
			want = want || strings.Contains(small(field), small(text))
		}
		search := newTextSearch(text)
		for range 2 { // what it has looked at before makes no difference
			if got := search.finds(&b); got != want {
				t.Errorf("%q in %q, %q, %q, %s: %v", text, file, destination, label, b.ID, got)
			}
		}
	})
}

// BenchmarkTextSearch looks in 100,000 pushes for what none has.
func BenchmarkTextSearch(b *testing.B) {
	j, err := journal.Open(b.Context(), journal.Config{Dir: filepath.Join(b.TempDir(), "data"), Metrics: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	const pushes = 100_000
	landed := make(chan struct{}, pushes)
	for i := range pushes {
		r := &journal.Record{State: push.Queued, Size: 1 << 20, AcceptedAt: time.Now(), Request: push.Request{
			File: fmt.Sprintf("/data/2026-11-26/exposure%06d/MC_O_20261126_%06d_R22_S11.fits", i/189, i), Label: fmt.Sprint("night", i/10000),
			Destination: fmt.Sprintf("s3://rubin-raw/2026-11-26/MC_O_20261126_%06d/R22_S11.fits", i),
		}}
		j.Accept(r, func(error) {
			done := *r
			done.State, done.FinishedAt = push.Done, time.Now()
			j.End(&done, func() { landed <- struct{}{} })
		})
	}
	for range pushes {
		<-landed
	}
	for name, text := range map[string]string{"a name": "exposure999999", "an id": "ffff-7fff", "nearly everywhere": strings.Repeat("0", 200)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := j.NewestWhere(push.ID{}, selection(push.Filter{Text: text}), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

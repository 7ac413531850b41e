package api

import (
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

func TestParseList(t *testing.T) {
	label := strings.Repeat("l", push.MaxLabelBytes)
	for _, tt := range []struct {
		name, query string
		filter      push.Filter
		wait        time.Duration
	}{
		{"nothing", "", push.Filter{}, 0},
		{"nothing at all", "&&", push.Filter{}, 0},
		{"one state", "state=queued", push.Filter{States: []push.State{push.Queued}}, 0},
		{"all states", "state=queued,running,done,failed,cancelled", push.Filter{States: states}, 0},
		{"escaped comma", "state=queued%2Crunning", push.Filter{States: []push.State{push.Queued, push.Running}}, 0},
		{"a state twice", "state=done,failed,done", push.Filter{States: []push.State{push.Done, push.Failed}}, 0},
		{"label", "label=night%2012", push.Filter{Label: "night 12"}, 0},
		{"label with plus", "label=night+12", push.Filter{Label: "night 12"}, 0},
		{"label of another script", "label=Gr%C3%B6%C3%9Fe", push.Filter{Label: "Größe"}, 0},
		{"longest label", "label=" + label, push.Filter{Label: label}, 0},
		{"text", "text=R22+s11&state=failed", push.Filter{Text: "R22 s11", States: []push.State{push.Failed}}, 0},
		{"longest text", "text=" + label, push.Filter{Text: label}, 0},
		{"least limit", "limit=1", push.Filter{Limit: 1}, 0},
		{"greatest limit", "limit=1000", push.Filter{Limit: push.MaxPage}, 0},
		{"cursor", "cursor=" + someID, push.Filter{Before: mustID(t, someID)}, 0},
		{"seconds", "wait=60", push.Filter{}, time.Minute},
		{"a fraction of a second", "wait=0.5", push.Filter{}, 500 * time.Millisecond},
		{"duration", "wait=1m30s", push.Filter{}, 90 * time.Second},
		{"no wait", "wait=0", push.Filter{}, 0},
		{"longest wait", "wait=1h", push.Filter{}, time.Hour},
		{"longest wait in seconds", "wait=3600", push.Filter{}, time.Hour},
		{"barrier", "label=L&wait=60s&limit=1", push.Filter{Label: "L", Limit: 1}, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			filter, wait, err := parseList(tt.query)
			if err != nil || !reflect.DeepEqual(filter, tt.filter) || wait != tt.wait {
				t.Errorf("parseList(%q) = %+v, %v, %v, want %+v, %v", tt.query, filter, wait, err, tt.filter, tt.wait)
			}
		})
	}
}

func TestParseListRefuses(t *testing.T) {
	for _, tt := range []struct{ name, query, says string }{
		{"unknown", "colour=red", `"colour" is not known`},
		{"capitals", "State=done", `"State" is not known`},
		{"no name", "=1", `"" is not known`},
		{"unknown beside known", "limit=1&colour=red", `"colour" is not known`},
		{"twice", "state=done&state=failed", `"state" is given 2 times`},
		{"no value", "wait", `"wait" is empty`},
		{"empty label", "label=", `"label" is empty`},
		{"label with the next line of Latin-1", "label=a%C2%85b", "without control characters"},
		{"text with a terminal's sequence", "text=%C2%9B31m", "without control characters"},
		{"semicolon", "limit=1;wait=1", "the query is not one"},
		{"broken escape", "label=%f", "the query is not one"},
		{"no such state", "state=waiting", `state "waiting" is none`},
		{"state in capitals", "state=Done", `state "Done" is none`},
		{"state with a space", "state=done, failed", `state " failed" is none`},
		{"comma at the end", "state=done,", `state "" is none`},
		{"comma alone", "state=,", `state "" is none`},
		{"label of 257 bytes", "label=" + strings.Repeat("l", 257), "at most 256 bytes"},
		{"label of two lines", "label=a%0Ab", "one line"},
		{"label with DEL", "label=%7F", "one line"},
		{"label of invalid UTF-8", "label=%FF", "UTF-8"},
		{"empty text", "text=", `"text" is empty`},
		{"text of 257 bytes", "text=" + strings.Repeat("l", 257), "at most 256 bytes"},
		{"text of two lines", "text=a%0Ab", "one line"},
		{"text of invalid UTF-8", "text=%FF", "UTF-8"},
		{"limit 0", "limit=0", "from 1 to 1000"},
		{"limit 1001", "limit=1001", "from 1 to 1000"},
		{"negative limit", "limit=-1", "from 1 to 1000"},
		{"limit in words", "limit=all", "from 1 to 1000"},
		{"limit beyond numbers", "limit=99999999999999999999", "from 1 to 1000"},
		{"cursor", "cursor=1", `cursor "1" is none`},
		{"cursor of no push", "cursor=00000000-0000-0000-0000-000000000000", "is none"},
		{"wait in words", "wait=soon", "at most an hour"},
		{"negative wait", "wait=-1s", "at most an hour"},
		{"negative seconds", "wait=-1", "at most an hour"},
		{"more than an hour", "wait=1h0m0.000000001s", "at most an hour"},
		{"more than an hour in seconds", "wait=3600.1", "at most an hour"},
		{"wait beyond numbers", "wait=1e300", "at most an hour"},
		{"wait beyond durations", "wait=9999999h", "at most an hour"},
		{"no number", "wait=NaN", "at most an hour"},
		{"for ever", "wait=Inf", "at most an hour"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			filter, wait, err := parseList(tt.query)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("parseList(%q) = %+v, %v, %v, want %q", tt.query, filter, wait, err, tt.says)
			}
			wantInvalid(t, err)
			if !reflect.DeepEqual(filter, push.Filter{}) || wait != 0 {
				t.Errorf("%+v, %v beside an error", filter, wait)
			}
		})
	}
}

// TestOneMistakeIsNamed: of several mistakes it is always the same, though maps
// have no order.
func TestOneMistakeIsNamed(t *testing.T) {
	for _, query := range []string{"a=1&b=1&c=1&d=1", "limit=x&state=x&wait=x&cursor=x"} {
		_, _, first := parseList(query)
		for range 50 {
			if _, _, err := parseList(query); err.Error() != first.Error() {
				t.Fatalf("once %q, once %q", first, err)
			}
		}
	}
}

// FuzzQuery: what is accepted can be asked of the queue, and written anew it is
// the same; what is not is refused in one line.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{
		"", "state=queued,running&label=L&limit=10&cursor=" + someID, "wait=60s", "wait=1e3", "wait=NaN", "wait=-0", "label=%00", "label=%ff",
		"limit=1&limit=2", "a;b", "%", "=", "state=,", "limit=+1", "wait=0x1p4", "label=" + strings.Repeat("l", 300),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		_, err := parseGet(query)
		wantInvalid(t, err)
		if _, err := parameters(query); err == nil && strings.Trim(query, "&") != "" {
			t.Errorf("%q is taken for no parameters", query)
		}
		filter, wait, err := parseList(query)
		wantInvalid(t, err)
		if wait < 0 || wait > maxWait || filter.Limit < 0 || filter.Limit > push.MaxPage || len(filter.Label) > push.MaxLabelBytes || len(filter.States) > len(states) {
			t.Errorf("%q: %+v, wait %v", query, filter, wait)
		}
		for _, s := range filter.States {
			if !slices.Contains(states, s) {
				t.Errorf("%q: state %q", query, s)
			}
		}
		if err != nil {
			return
		}
		again, wait2, err := parseList(written(filter, wait))
		if err != nil || !reflect.DeepEqual(again, filter) || wait2 != wait {
			t.Errorf("%q: %+v, wait %v, written anew %+v, %v, %v", query, filter, wait, again, wait2, err)
		}
	})
}

// written returns the query that asks for this.
func written(f push.Filter, wait time.Duration) string {
	q := url.Values{}
	for i, s := range f.States {
		if i == 0 {
			q.Set("state", string(s))
			continue
		}
		q.Set("state", q.Get("state")+","+string(s))
	}
	if f.Label != "" {
		q.Set("label", f.Label)
	}
	if f.Limit != 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	if !f.Before.IsZero() {
		q.Set("cursor", f.Before.String())
	}
	q.Set("wait", wait.String())
	return q.Encode()
}

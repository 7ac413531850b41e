package api

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/lsst-dm/s3daemon/push"
)

// maxWait is the longest wait that a query may ask for.
const maxWait = time.Hour

// decodeList reads what GET /pushes asks for. The error is a *push.Error, as
// are those of the other functions here.
func decodeList(r *http.Request) (push.Filter, time.Duration, error) {
	filter, wait, err := parseList(r.URL.RawQuery)
	if r.Method == http.MethodHead {
		wait = 0
	}
	return filter, wait, err
}

// decodeGet reads what GET /pushes/{id} asks for.
func decodeGet(r *http.Request) (push.ID, time.Duration, error) {
	id, err := decodeID(r)
	if err != nil {
		return push.ID{}, 0, err
	}
	wait, err := parseGet(r.URL.RawQuery)
	if r.Method == http.MethodHead {
		wait = 0
	}
	return id, wait, err
}

// decodeChange reads which push a request is to change. It has no parameters.
func decodeChange(r *http.Request) (push.ID, error) {
	id, err := decodeID(r)
	if err != nil {
		return push.ID{}, err
	}
	_, err = parameters(r.URL.RawQuery)
	return id, err
}

// decodeID returns the id in the path, which arrives escaped.
func decodeID(r *http.Request) (push.ID, error) {
	text := chi.URLParam(r, "id")
	if plain, err := url.PathUnescape(text); err == nil {
		text = plain
	}
	return push.ParseID(text)
}

// parseList reads the query of GET /pushes.
func parseList(query string) (push.Filter, time.Duration, error) {
	var filter push.Filter
	var wait time.Duration
	given, err := parameters(query, "cursor", "label", "limit", "state", "text", "wait")
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value := given[name]
		switch name {
		case "cursor":
			filter.Before, err = parseCursor(value)
		case "label":
			filter.Label, err = value, checkLabel(value)
		case "limit":
			filter.Limit, err = parseLimit(value)
		case "state":
			filter.States, err = parseStates(value)
		case "text":
			filter.Text, err = value, checkText(value)
		case "wait":
			wait, err = parseWait(value)
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		return push.Filter{}, 0, err
	}
	return filter, wait, nil
}

// parseGet reads the query of GET /pushes/{id}.
func parseGet(query string) (time.Duration, error) {
	given, err := parameters(query, "wait")
	if value, ok := given["wait"]; ok {
		return parseWait(value)
	}
	return 0, err
}

// parameters returns the parameters of a query, of which there are the known
// ones only, each at most once and none empty. An empty value is a mistake, as
// where a script's variable is not set: a barrier for no label in particular
// would wait for everybody's pushes.
func parameters(query string, known ...string) (map[string]string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, invalidParameter("the query is not one: %s (curl -G --data-urlencode writes it right)", push.OneLine(err.Error()))
	}
	given := make(map[string]string, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch all := values[name]; {
		case len(known) == 0:
			return nil, invalidParameter("the parameter %s is not known: this request has none", push.Quote(name))
		case !slices.Contains(known, name):
			return nil, invalidParameter("the parameter %s is not known: there is %s", push.Quote(name), strings.Join(known, ", "))
		case len(all) > 1:
			return nil, invalidParameter("the parameter %s is given %d times", push.Quote(name), len(all))
		case all[0] == "":
			return nil, invalidParameter("the parameter %s is empty: leave it out", push.Quote(name))
		default:
			given[name] = all[0]
		}
	}
	return given, nil
}

func invalidParameter(format string, args ...any) error {
	return push.Errorf(push.InvalidParameter, format, args...)
}

// parseCursor reads what the page before had as next.
func parseCursor(text string) (push.ID, error) {
	id, err := push.ParseID(text)
	if err != nil || id.IsZero() {
		return push.ID{}, invalidParameter("cursor %s is none: it is the next of the page before", push.Quote(text))
	}
	return id, nil
}

// checkLabel refuses what no push can have as its label: nothing with it would
// ever be pending, and the barrier would open at once.
func checkLabel(text string) error {
	if !push.IsText(text, push.MaxLabelBytes) {
		return invalidParameter("label %s is none: a label is one line of UTF-8 text of at most %d bytes, without control characters", push.Quote(text), push.MaxLabelBytes)
	}
	return nil
}

// checkText refuses what is not looked for.
func checkText(text string) error {
	if !push.IsText(text, push.MaxTextBytes) {
		return invalidParameter("text %s cannot be looked for: it is one line of UTF-8 text of at most %d bytes, without control characters", push.Quote(text), push.MaxTextBytes)
	}
	return nil
}

func parseLimit(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > push.MaxPage {
		return 0, invalidParameter("limit %s is not a number from 1 to %d", push.Quote(text), push.MaxPage)
	}
	return n, nil
}

// states are those that a list can be asked for.
var states = []push.State{push.Queued, push.Running, push.Done, push.Failed, push.Cancelled}

// parseStates reads states separated by commas.
func parseStates(text string) ([]push.State, error) {
	var wanted []push.State
	for name := range strings.SplitSeq(text, ",") {
		state := push.State(name)
		if !slices.Contains(states, state) {
			return nil, invalidParameter("state %s is none: there are queued, running, done, failed and cancelled, separated by commas", push.Quote(name))
		}
		if !slices.Contains(wanted, state) {
			wanted = append(wanted, state)
		}
	}
	return wanted, nil
}

// parseWait reads 30s, 1m30s, or a plain number of seconds, as the variables of
// the daemon are written too.
func parseWait(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if seconds, numErr := strconv.ParseFloat(text, 64); numErr == nil {
		if !(seconds >= 0 && seconds <= maxWait.Seconds()) { // nor NaN
			seconds = -1
		}
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d < 0 || d > maxWait {
		return 0, invalidParameter("wait %s is not a duration such as 30s or 1m30s, or a number of seconds, of at most an hour", push.Quote(text))
	}
	return d, nil
}

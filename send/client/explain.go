package client

import (
	"errors"
	"strings"

	"github.com/lsst-dm/s3daemon/push"
)

// Explain returns the error as one line for a person: the daemon's own words,
// its code, and what the store's operators would ask for.
func Explain(err error) string {
	answer, ok := errors.AsType[*push.Error](err)
	if !ok {
		return push.OneLine(err.Error())
	}
	var about []string
	if answer.Code != "" {
		about = append(about, string(answer.Code))
	}
	if s := answer.Store; s != nil {
		if s.Code != "" {
			about = append(about, "store code "+s.Code)
		}
		if s.RequestID != "" {
			about = append(about, "store request "+s.RequestID)
		}
	}
	if len(about) == 0 {
		return push.OneLine(answer.Detail)
	}
	return push.OneLine(answer.Detail + " (" + strings.Join(about, ", ") + ")")
}

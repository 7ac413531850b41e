package main

import (
	"fmt"
	"net/http"
	"time"
)

// sts answers as the service does that gives credentials for a token of the
// cluster (AssumeRoleWithWebIdentity). What it gives are the keys that the store
// was told of last, to whoever brings a role and a token.
func (s *store) sts(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("Action") != "AssumeRoleWithWebIdentity" || r.FormValue("RoleArn") == "" || r.FormValue("WebIdentityToken") == "" {
		http.Error(w, "not what was expected: "+r.Form.Encode(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	key := s.keys[len(s.keys)-1]
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>of-a-test</SessionToken><Expiration>%s</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
		key[0], key[1], time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
}

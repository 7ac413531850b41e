package k8s

import "testing"

// TestWebIdentity gives the daemon no credentials but a token of its service
// account, as the hooks of cloud providers do, and a service that takes such
// tokens. What it answers with are the store's keys.
func TestWebIdentity(t *testing.T) {
	t.Parallel()
	n := newNamespace(t, restricted)
	s := n.startStore("raw")
	const where = "/var/run/secrets/identity"
	e := startExample(n, "identity", s, map[string]any{
		"credentials": map[string]any{"secret": ""},
		"extraEnv": []any{
			map[string]any{"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::123456789012:role/s3daemon"},
			map[string]any{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": where + "/token"},
			map[string]any{"name": "AWS_ENDPOINT_URL_STS", "value": "http://store." + n.name + ".svc:9001/sts"},
		},
		"extraVolumes": []any{map[string]any{"name": "identity", "projected": map[string]any{"sources": []any{
			map[string]any{"serviceAccountToken": map[string]any{"path": "token", "audience": "sts.amazonaws.com", "expirationSeconds": 3600}},
		}}}},
		"extraVolumeMounts": []any{map[string]any{"name": "identity", "mountPath": where, "readOnly": true}},
	})
	n.untilReady(e.pod().Metadata.Name)
	s.untilSome()
}

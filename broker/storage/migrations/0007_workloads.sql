-- works with: 6
-- Workloads of clusters (docs/adr/0037).

ALTER TABLE nodes ADD COLUMN cluster TEXT;
ALTER TABLE nodes ADD COLUMN pod TEXT;
ALTER TABLE nodes ADD COLUMN pod_uid TEXT;

-- The only upstreams that issue for the node, as a JSON list; NULL: those that policy has.
ALTER TABLE nodes ADD COLUMN upstreams TEXT;

-- Nodes of pods that are to end, and those that ended and are to be forgotten.
CREATE INDEX nodes_of_pods ON nodes (status, identity_not_after) WHERE pod IS NOT NULL;

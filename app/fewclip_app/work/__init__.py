"""What the page works on: sessions, workspaces, uploads, the job queue, training, archives."""

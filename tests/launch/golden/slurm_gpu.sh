#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1
#SBATCH --job-name=golden.IDENTITY
#SBATCH --mem=8G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=RESULTS/golden/slurm/SUBMISSION/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@60
#SBATCH --time=15

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output RESULTS/golden/slurm/SUBMISSION/%j_%t_log.out PYTHON -u -m submitit.core._submit RESULTS/golden/slurm/SUBMISSION
